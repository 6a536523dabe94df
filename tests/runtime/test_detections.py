"""Detections as users hold them: length, iteration, selection, names, and other projects' forms."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.ops.masks import decode_mask, encode_mask
from boxwright.structures import Category
from boxwright_runtime.detections import Detection, Detections

CATEGORIES = (Category(7, "cat"), Category(1, "dog"), Category(30, "bird"))
BOXES = [[1.0, 2.0, 11.0, 22.0], [0.0, 0.0, 5.0, 4.0], [3.5, 4.5, 6.5, 8.5]]
HEIGHT, WIDTH = 24, 17


def make_detections(*, masks: bool = False, categories: tuple[Category, ...] = CATEGORIES) -> Detections:
    """Three objects, of which the first and the last are of one class."""
    images = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    for image, (x1, y1, x2, y2) in zip(images, torch.tensor(BOXES).long().tolist(), strict=True):
        image[y1:y2, x1:x2] = True
    rles = tuple(encode_mask(image) for image in images) if masks else None
    return Detections(torch.tensor(BOXES), torch.tensor([0.9, 0.5, 0.25]), torch.tensor([2, 0, 2]), rles, categories)


def no_detections(*, masks: bool = False) -> Detections:
    labels = torch.zeros(0, dtype=torch.int64)
    return Detections(torch.zeros(0, 4), torch.zeros(0), labels, () if masks else None, CATEGORIES)


def test_len_counts_objects_and_none_are_false() -> None:
    assert len(make_detections()) == 3
    assert make_detections()
    assert len(no_detections()) == 0
    assert not no_detections()
    assert list(no_detections()) == []
    assert no_detections().names == []


def test_iteration_gives_one_object_at_a_time() -> None:
    first, second, third = make_detections(masks=True)
    assert isinstance(first, Detection)
    assert first.box == (1.0, 2.0, 11.0, 22.0)
    assert (first.score, first.label, first.name) == (pytest.approx(0.9), 2, "bird")
    assert second.category == Category(7, "cat")
    assert third.mask is not None
    assert decode_mask(third.mask).sum() == 12


def test_an_integer_selects_one_object() -> None:
    detections = make_detections()
    assert detections[1] == list(detections)[1]
    assert detections[-1] == detections[2]
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"there is no detection {index}, there are 3"):
            detections[index]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(None, 2), [0, 1]),
        (slice(None, None, 2), [0, 2]),
        (slice(5, 9), []),
        (slice(None, None, -1), [2, 1, 0]),
        (slice(-1, None, -2), [2, 0]),
        (range(1, 3), [1, 2]),
        ((0, 2), [0, 2]),
        (np.array([2, 0], dtype=np.uint8), [2, 0]),
        ([2, 0], [2, 0]),
        ([-1], [2]),
        ([], []),
        ([True, False, True], [0, 2]),
        (torch.tensor([False, True, False]), [1]),
        (torch.tensor([2, 1]), [2, 1]),
        (np.array([True, True, False]), [0, 1]),
        (np.array([1, 1]), [1, 1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("masks", [False, True])
def test_slices_positions_and_masks_select_several(index: Any, expected: list[int], masks: bool) -> None:
    detections = make_detections(masks=masks)
    some = detections[index]
    assert isinstance(some, Detections)
    assert some.boxes.tolist() == [BOXES[i] for i in expected]
    assert some.labels.tolist() == [[2, 0, 2][i] for i in expected]
    assert some.names == [detections.names[i] for i in expected]
    assert some.masks == (None if detections.masks is None else tuple(detections.masks[i] for i in expected))


def test_a_threshold_and_a_class_are_masks() -> None:
    detections = make_detections()
    assert len(detections[detections.scores >= 0.5]) == 2
    assert detections[detections.labels == 2].names == ["bird", "bird"]
    nothing = no_detections()
    assert len(nothing[nothing.scores > 0.5]) == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("index", [1, np.int64(1), np.array(1), torch.tensor(1), torch.tensor(-2, dtype=torch.int8)])
def test_a_whole_number_of_any_kind_selects_one(index: Any) -> None:
    assert make_detections()[index] == make_detections()[1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("index", "name"),
    [
        (None, "None"),
        (..., "Ellipsis"),
        ("bird", "'bird'"),
        (True, "True"),
        (np.array(False), "False"),
        (0.5, r"float64 of shape \(\)"),
        ([0.7], r"float64 of shape \(1,\)"),
        (np.array([0.2, 1.9]), r"float64 of shape \(2,\)"),
        ([[0], [1]], r"int64 of shape \(2, 1\)"),
        (torch.ones(3, 3, dtype=torch.bool), r"bool of shape \(3, 3\)"),
        ([0, None], r"\[0, None\]"),
        ([[0], [1, 2]], r"\[\[0\], \[1, 2\]\]"),
    ],
)
def test_other_indices_are_errors_in_words(index: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"^an index is a whole number, a slice, a list of .* each object, not {name}$"):
        make_detections()[index]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([True, False], "a mask has one value for each of 3 detections"),
        ([0, 3], r"positions are from -3 to 2, not \[0, 3\]"),
        ([-4], r"positions are from -3 to 2, not \[-4\]"),
    ],
    ids=str,
)
def test_indices_that_select_nothing_are_errors(index: list[Any], message: str) -> None:
    with pytest.raises(IndexError, match=message):
        make_detections()[index]


def test_names_are_labels_where_classes_are_not_known() -> None:
    detections = make_detections(categories=())
    assert detections.names == ["2", "0", "2"]
    assert detections[0].category is None


def test_plain_values_go_through_json() -> None:
    values = json.loads(json.dumps(make_detections(masks=True).to_dict()))
    assert values["boxes"] == BOXES
    assert values["labels"] == [2, 0, 2]
    assert values["names"] == ["bird", "cat", "bird"]
    assert values["scores"] == pytest.approx([0.9, 0.5, 0.25])
    assert [mask["size"] for mask in values["masks"]] == [[HEIGHT, WIDTH]] * 3
    assert "masks" not in make_detections().to_dict()
    assert no_detections().to_dict() == {"boxes": [], "scores": [], "labels": [], "names": []}


def test_rows_of_a_coco_results_file() -> None:
    rows = make_detections(masks=True).to_coco(42)
    assert [row["category_id"] for row in rows] == [30, 7, 30]
    assert rows[0]["bbox"] == [1.0, 2.0, 10.0, 20.0]
    assert {row["image_id"] for row in rows} == {42}
    assert isinstance(json.loads(json.dumps(rows))[0]["segmentation"]["counts"], str)
    assert "segmentation" not in make_detections().to_coco(42)[0]
    assert no_detections().to_coco(42) == []
    with pytest.raises(ValueError, match="category ids are not known"):
        make_detections(categories=()).to_coco(42)


def test_they_may_be_changed_in_place() -> None:
    detections = make_detections()
    detections.boxes *= 2
    detections.scores[1] = 0.75
    detections.labels = detections.labels + 1
    assert detections.boxes[0].tolist() == [2.0, 4.0, 22.0, 44.0]
    assert detections[1].score == 0.75
    assert detections.labels.tolist() == [3, 1, 3]


def test_a_selection_is_a_copy() -> None:
    detections = make_detections()
    detections[:2].boxes.zero_()
    assert detections.boxes.tolist() == BOXES


def test_to_another_device() -> None:
    detections = make_detections(masks=True)
    moved = detections.to("cpu").cpu()
    assert torch.equal(moved.boxes, detections.boxes)
    assert (moved.masks, moved.categories) == (detections.masks, detections.categories)


@pytest.mark.skipif(find_spec("supervision") is None, reason="the package supervision is not installed")
@pytest.mark.parametrize("masks", [False, True])
def test_as_supervision_has_them(masks: bool) -> None:
    theirs = make_detections(masks=masks).to_supervision()
    assert theirs.xyxy.tolist() == BOXES
    assert theirs.class_id.tolist() == [2, 0, 2]
    assert list(theirs.data["class_name"]) == ["bird", "cat", "bird"]
    assert (theirs.mask is None) == (not masks)
    assert len(no_detections(masks=masks).to_supervision()) == 0


@pytest.mark.skipif(find_spec("supervision") is not None, reason="the package supervision is installed")
def test_without_supervision_the_error_says_what_to_install() -> None:
    with pytest.raises(ImportError, match="supervision is not installed: pip install supervision"):
        make_detections().to_supervision()
