"""Detections of an exported file, which are arrays: everything is as with tensors, and nothing needs torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from boxwright_runtime.detections import Detections
from boxwright_runtime.masks import encode_rle
from boxwright_runtime.structures import Category

CATEGORIES = (Category(7, "cat"), Category(1, "dog"), Category(30, "bird"))


def make_both(*, masks: bool = True) -> tuple[Detections, Detections]:
    """The same five objects as arrays and as tensors."""
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 20, (5, 4)).astype(np.float32)
    scores, labels = np.sort(rng.random(5, dtype=np.float32))[::-1].copy(), rng.integers(0, 3, 5)
    rles = tuple(encode_rle(rng.random((20, 24)) < 0.5) for _ in range(5)) if masks else None
    tensors = (torch.from_numpy(values.copy()) for values in (boxes, scores, labels))
    return Detections(boxes, scores, labels, rles, CATEGORIES), Detections(*tensors, rles, CATEGORIES)


def test_values_and_forms_are_the_same() -> None:
    arrays, tensors = make_both()
    assert arrays.to_dict() == tensors.to_dict()
    assert arrays.to_coco(3) == tensors.to_coco(3)
    assert list(arrays) == list(tensors)
    assert arrays.names == tensors.names
    assert arrays[-1] == tensors[-1]


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 4),
        [4, 0],
        [],
        np.array([True, False, True, False, True]),
        torch.tensor([False, True, True, False, False]),
        torch.tensor([3, -1]),
        np.array([2, 2], dtype=np.uint8),
        range(2),
    ],
    ids=str,
)
@pytest.mark.parametrize("masks", [False, True])
def test_any_index_selects_the_same(index: Any, masks: bool) -> None:
    arrays, tensors = make_both(masks=masks)
    some = arrays[index]
    assert isinstance(some.boxes, np.ndarray)
    assert some.to_dict() == tensors[index].to_dict()
    assert some.boxes.shape == (len(some), 4)
    some.boxes[:] = -1
    assert (arrays.boxes >= 0).all()


def test_a_threshold_is_a_mask() -> None:
    arrays, tensors = make_both()
    assert len(arrays[arrays.scores >= arrays.scores[2]]) == 3
    assert arrays[arrays.scores >= 0.3].to_dict() == tensors[tensors.scores >= 0.3].to_dict()


def test_arrays_are_on_the_cpu() -> None:
    arrays, _ = make_both()
    moved = arrays.cpu().to("cpu").to(torch.device("cpu"))
    assert moved.to_dict() == arrays.to_dict()
    with pytest.raises(ValueError, match="are arrays, which are on the CPU and cannot be moved to cuda"):
        arrays.to("cuda")


@pytest.mark.skipif(find_spec("supervision") is None, reason="the package supervision is not installed")
def test_as_supervision_has_them() -> None:
    arrays, tensors = make_both()
    ours, theirs = arrays.to_supervision(), tensors.to_supervision()
    assert np.array_equal(ours.mask, theirs.mask)
    assert np.array_equal(ours.xyxy, theirs.xyxy)
