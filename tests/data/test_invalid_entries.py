"""Entries of COCO files that cannot be read: refused in training, named one by one by the check."""

from __future__ import annotations

from typing import Any

import pytest

from boxwright.data.open import open_data
from boxwright.data.readers import _coco_entries
from boxwright.data.records import DetectionData
from boxwright.workflows.reading import read_split
from heard import Heard
from reader_examples import kinds_of

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"bbox": [1, 2, 3]}, "bbox must be four finite numbers"),
    ({"bbox": None}, "bbox must be four finite numbers"),
    ({"bbox": [1, 2, float("nan"), 4]}, "bbox must be four finite numbers"),
    ({"area": float("nan")}, "area must be a finite number"),
    ({"category_id": 42}, "category_id 42 is not in 'categories'"),
    ({"category_id": None}, "'category_id' must be a whole number"),
    ({"image_id": 99}, "image_id 99 is not in 'images'"),
    ({"iscrowd": 7}, "iscrowd must be 0 or 1"),
    ({"segmentation": 3}, "segmentation must be polygons"),
    ({"segmentation": "../mask.png"}, "'segmentation' '../mask.png' leaves the image folder"),
]


def errors(data: DetectionData) -> list[str]:
    return [str(finding) for finding in data.findings if finding.kind.severity == "error"]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_one_annotation_does_not_hide_the_others(tiny, change: dict[str, Any], message: str) -> None:
    tiny.document["annotations"][0] |= change
    tiny.write()
    with pytest.raises(ValueError, match=rf"train\.json: annotation 1.*: {message}"):
        open_data(tiny.root)
    data = open_data(tiny.root, drop_invalid_entries=True)
    assert [len(record.labels) for record in data.records] == [1, 1, 0]
    (error,) = errors(data)
    assert message in error
    assert "annotation 1" in error


def test_many_faults_are_counted_and_named(tiny) -> None:
    good = tiny.document["annotations"][0]
    tiny.document["annotations"] += [good | {"id": 10 + number} | change for number, (change, _) in enumerate(FAULTS)]
    tiny.write()
    with pytest.raises(ValueError, match=r"annotation 10 of image 'a\.png': bbox .*; and 9 more, the next: ") as caught:
        open_data(tiny.root)
    assert "\n" not in str(caught.value)
    data = open_data(tiny.root, drop_invalid_entries=True)
    assert len(errors(data)) == len(FAULTS)
    assert sum(len(record.labels) for record in data.records) == 3


def test_an_image_that_cannot_be_read_and_its_annotations(tiny) -> None:
    tiny.document["images"][0]["file_name"] = None
    tiny.write()
    with pytest.raises(ValueError, match=r"images\[0\]: 'file_name' must be a text .*; and 2 more"):
        open_data(tiny.root)
    data = open_data(tiny.root, drop_invalid_entries=True)
    assert kinds_of(data) == {"invalid_image_entry": 1, "invalid_annotation": 2}
    assert [record.path.name for record in data.records] == ["b.png", "c.png"]
    for image in tiny.document["images"]:
        image.pop("file_name", None)
    tiny.write()
    with pytest.raises(ValueError, match=r"images\[2\]: 'file_name' must be a text"):
        open_data(tiny.root, drop_invalid_entries=True)


@pytest.mark.parametrize("name", ["../gone/a.png", "/etc/passwd"])
def test_a_name_that_leaves_the_folder(tiny, name: str) -> None:
    tiny.document["images"].append({"id": 77, "file_name": name, "width": 9, "height": 9})
    tiny.document["annotations"].append({"id": 9, "image_id": 77, "category_id": 7, "bbox": [1, 1, 2, 2]})
    tiny.write()
    with pytest.raises(ValueError, match=r"are not clear: .*(leaves the folder|is that of a\.png)"):
        open_data(tiny.root)
    data = read_split(tiny.root, "train", drop_unreadable_images=True, observer=Heard())
    (error,) = errors(data)
    assert error.startswith(name)
    assert "1 objects are dropped with it" in error
    assert len(data.records) == 3


def test_faults_without_end_stop_the_reader(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_coco_entries, "MOST_INVALID", 2)
    tiny.document["categories"][0]["id"] = 1000
    tiny.document["annotations"] += [{**tiny.document["annotations"][0], "id": number} for number in range(10, 20)]
    tiny.write()
    with pytest.raises(
        ValueError, match=r"over 2 annotations cannot be read, the first: annotation 1 of image 'a\.png'"
    ):
        open_data(tiny.root, drop_invalid_entries=True)
