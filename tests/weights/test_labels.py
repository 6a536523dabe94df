"""Names of classes: COCO's list, and names that mean the same."""

from __future__ import annotations

import pytest

from boxwright.weights.labels import UNUSED, canonical_name, category_ids, coco_categories


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("motorbike", "motorcycle"),
        ("Motor_Bike", "motorcycle"),
        ("aeroplane", "airplane"),
        ("sofa", "couch"),
        ("pottedplant", "potted plant"),
        ("diningtable", "dining table"),
        ("tvmonitor", "tv"),
        ("TV-monitor", "tv"),
        ("  Traffic-light ", "traffic light"),
        ("hair_dryer", "hair drier"),
        ("doughnut", "donut"),
        ("Table  Rotated", "table rotated"),
        ("N/A", "n/a"),
    ],
)
def test_names_of_one_class_become_equal(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical


def test_names_of_coco_stay_and_differ() -> None:
    names = [category.name for category in coco_categories()]
    assert len({canonical_name(name) for name in names}) == 80
    assert [canonical_name(name) for name in names] == names
    assert [canonical_name(name.replace(" ", "").upper()) for name in names] == names


def test_labels_that_are_category_ids() -> None:
    categories = category_ids(91)
    assert [category.id for category in categories] == list(range(91))
    assert [category.id for category in categories if category.name == UNUSED] == [
        *(0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    ]
    assert (categories[17].name, categories[90].name) == ("cat", "toothbrush")
    panoptic = [category.name for category in category_ids(250)]
    assert (panoptic[:91], panoptic[91], panoptic[-1]) == ([each.name for each in categories], "class_91", "class_249")
    assert [category.name for category in category_ids(2)] == ["class_0", "class_1"]
