"""Detections are matched one to one, and differences are counted for what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from boxwright.exporting.comparison import (
    DetectionAgreement,
    DetectionRows,
    Tolerance,
    compare_detections,
    compare_images,
    count_sensitive,
    read_outputs,
)

TOLERANCE = Tolerance()


def make_rows(seed: int = 0, count: int = 20, *, is_full: bool = False, masks: bool = False) -> DetectionRows:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 500, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(20, 100, (count, 2))], axis=1).astype(np.float32)
    scores = np.sort(random.random(count).astype(np.float32))[::-1]
    probabilities = random.random((count, 28, 28), dtype=np.float32) if masks else None
    return DetectionRows(boxes, scores, random.integers(0, 3, count), probabilities, is_full)


def test_equal_detections_agree() -> None:
    rows = make_rows(masks=True)
    agreement = compare_detections(rows, rows, TOLERANCE)
    assert agreement == DetectionAgreement(total=20, num_matched=20)
    assert agreement.is_within(TOLERANCE)


def test_order_does_not_matter() -> None:
    rows = make_rows()
    order = np.random.default_rng(1).permutation(20)
    other = DetectionRows(rows.boxes[order], rows.scores[order], rows.labels[order], None, False)
    assert compare_detections(rows, other, TOLERANCE).num_matched == 20


def test_small_differences_are_measured() -> None:
    rows = make_rows()
    side = (rows.boxes[:, 2:] - rows.boxes[:, :2]).max(1)[3]
    moved = rows.boxes.copy()
    moved[3, 2] += 5e-4 * side
    agreement = compare_detections(rows, rows._replace(boxes=moved, scores=rows.scores - np.float32(1e-4)), TOLERANCE)
    assert agreement.num_matched == 20
    assert agreement.box_difference == pytest.approx(5e-4, rel=0.05)
    assert agreement.score_difference == pytest.approx(1e-4, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "num_apart", "num_missing"),
    [
        ({"scores": 1e-3}, 20, 0),
        ({"boxes": 1.0}, 20, 0),
        ({"boxes": 50.0}, 0, 40),
        ({"labels": 1}, 0, 40),
        ({"scores": 0.5}, 0, 40),
    ],
)
def test_faults_are_seen(changes: dict[str, Any], num_apart: int, num_missing: int) -> None:
    """Scores and boxes a little and far away, and labels that are shifted."""
    rows = make_rows()
    other = rows._replace(**{name: getattr(rows, name) + value for name, value in changes.items()})
    agreement = compare_detections(rows, other, TOLERANCE)
    assert (agreement.num_apart, agreement.num_missing, agreement.num_matched) == (num_apart, num_missing, 0)
    assert not agreement.is_within(TOLERANCE)


def test_other_masks_are_seen() -> None:
    rows = make_rows(masks=True)
    assert rows.masks is not None
    assert compare_detections(rows, rows._replace(masks=1 - rows.masks), TOLERANCE).num_apart == 20
    assert compare_detections(rows, rows._replace(masks=None), TOLERANCE).num_apart == 20


def test_near_ties_where_the_list_ends() -> None:
    """Two candidates of all but one score: either side keeps another one."""
    rows = make_rows(is_full=True)
    other = rows.boxes.copy()
    other[-1] = (900, 900, 950, 950)
    agreement = compare_detections(rows, rows._replace(boxes=other), TOLERANCE)
    assert (agreement.num_matched, agreement.num_cut, agreement.num_missing) == (19, 2, 0)
    assert "2 near-ties where the list ends" in agreement.describe()
    other[0] = (900, 900, 950, 950)
    assert compare_detections(rows, rows._replace(boxes=other), TOLERANCE).num_missing == 2


def test_a_single_near_tie_is_within_and_more_are_not() -> None:
    rows = make_rows(count=20)
    agreement = compare_detections(rows, make_rows(count=20)._replace(is_full=False), TOLERANCE)
    fewer = DetectionRows(rows.boxes[1:], rows.scores[1:], rows.labels[1:], None, False)
    assert agreement.is_within(TOLERANCE)
    assert compare_detections(rows, fewer, TOLERANCE).is_within(TOLERANCE)
    fewest = DetectionRows(rows.boxes[2:], rows.scores[2:], rows.labels[2:], None, False)
    assert not compare_detections(rows, fewest, TOLERANCE).is_within(TOLERANCE)


def test_nothing_agrees_with_nothing() -> None:
    empty = make_rows(count=0)
    assert compare_detections(empty, empty, TOLERANCE).is_within(TOLERANCE)
    assert not compare_detections(make_rows(count=1), empty, TOLERANCE).is_within(TOLERANCE)


def test_images_are_counted_together() -> None:
    images = [make_rows(seed) for seed in range(3)]
    assert compare_images(images, images).total == 60
    with pytest.raises(ValueError, match="3 images went in, and detections of 2 came out"):
        compare_images(images, images[:2])


def test_outputs_are_read() -> None:
    rows = make_rows()
    outputs = {
        "boxes": np.concatenate([rows.boxes, np.zeros((5, 4), dtype=np.float32)])[None],
        "scores": np.concatenate([rows.scores, np.zeros(5, dtype=np.float32)])[None],
        "labels": np.concatenate([rows.labels, np.zeros(5, dtype=int)])[None],
        "count": np.array([20]),
    }
    (again,) = read_outputs(outputs)
    assert compare_detections(rows, again, TOLERANCE).num_matched == 20
    assert not again.is_full
    with pytest.raises(ValueError, match="rows beyond the 19 detections of image 0 are not 0"):
        read_outputs({**outputs, "count": np.array([19])})
    with pytest.raises(ValueError, match="not sorted by score"):
        read_outputs({**outputs, "scores": -outputs["scores"]})


@pytest.mark.parametrize(("num_sensitive", "is_within"), [(0, False), (4, True), (50, True)])
def test_what_rounding_moves_in_the_model_itself_is_excused(num_sensitive: int, is_within: bool) -> None:
    agreement = DetectionAgreement(total=100, num_matched=94, num_apart=6, num_sensitive=num_sensitive)
    assert agreement.is_within(TOLERANCE) == is_within


def test_no_more_than_a_tenth_is_excused() -> None:
    agreement = DetectionAgreement(total=100, num_matched=85, num_apart=15, num_sensitive=90)
    assert not agreement.is_within(TOLERANCE)
    assert "90 differ in the model itself where its input changes by a millionth" in agreement.describe()


def test_sensitive_detections_are_counted(make_detector: Any) -> None:
    """Those of a layer that turns a millionth of its outputs into all of them."""
    detector = make_detector().eval()
    images, sizes = torch.rand(2, 3, 64, 64), torch.tensor([[64, 64, 64, 64]] * 2)
    assert count_sensitive(detector, images, sizes) == 0
    first = next(module for module in detector.backbone.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda _module, _inputs, output: (1e6 * output).sin())
    assert count_sensitive(detector, images, sizes) > 5
