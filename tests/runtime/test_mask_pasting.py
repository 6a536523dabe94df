"""Masks on images: those of boxes against torchvision's paste_masks_in_image, those of images against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from boxwright_runtime.mask_pasting import paste_masks
from boxwright_runtime.masks import decode_rle

TIE = 1e-6
"""Difference from the threshold below which two orders of rounding may fall on different sides."""


def make_boxes(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Boxes of all sizes that reach into an image; some without an area, some as large as the image."""
    height, width = size
    rng = np.random.default_rng(seed)
    corners = rng.uniform((-0.1 * width, -0.1 * height), (1.1 * width, 1.1 * height), (count, 2))
    sides = rng.random((count, 2)) ** 3 * (1.3 * width, 1.3 * height)
    sides[: count // 20] = 0
    boxes = np.concatenate((corners, corners + sides), 1)
    boxes[-(count // 20) :] = np.array([0, 0, width, height]) + rng.normal(0, 1, (count // 20, 4))
    # Of others torchvision makes no mask, but an error.
    low, high = boxes[:, :2], boxes[:, 2:]
    return boxes[((high > 2) & (low < (width - 2, height - 2))).all(1)].astype(np.float32)


@pytest.mark.parametrize(
    ("size", "threshold"), [((60, 90), 0.5), ((60, 90), 0.8), ((9, 200), 0.5), ((240, 31), 0.5), ((128, 128), 0.5)]
)
def test_equals_torchvision_at_any_box(size: tuple[int, int], threshold: float) -> None:
    """Pixels may differ only where the probability is the threshold's own."""
    boxes = make_boxes(1500, size, seed=size[0])
    assert len(boxes) > 500
    probabilities = np.random.default_rng(1).random((len(boxes), 28, 28), dtype=np.float32)
    probabilities[::3] = probabilities[::3, :1, :1]
    pasted = paste_masks(probabilities, boxes, size, threshold=threshold)
    assert [mask["size"] for mask in pasted] == [list(size)] * len(boxes)
    expected = paste_masks_in_image(torch.from_numpy(probabilities)[:, None], torch.from_numpy(boxes), size)[:, 0]
    masks = torch.from_numpy(np.stack([decode_rle(mask) for mask in pasted]))
    differ = masks != (expected > threshold)
    assert differ.sum() <= 1e-5 * differ.numel()
    assert not differ.any() or (expected[differ] - threshold).abs().max() < TIE
    assert masks.any((1, 2)).sum() > 200


def test_none() -> None:
    assert paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (60, 90)) == ()


def test_what_lies_beyond_the_image_is_empty() -> None:
    boxes = np.array([[95, 5, 120, 20], [5, 64, 20, 80], [-30, 5, -4, 20], [5, -40, 20, -10], [80, 50, 100, 70]])
    pasted = paste_masks(np.ones((5, 28, 28), np.float32), boxes.astype(np.float32), (60, 90))
    masks = np.stack([decode_rle(mask) for mask in pasted])
    assert masks.any((1, 2)).tolist() == [False, False, False, False, True]
    assert masks[4, 50:, 80:].all()


@pytest.mark.parametrize("size", [(60, 90), (41, 7), (160, 120), (3, 200), (13, 11)])
def test_masks_of_the_image_are_upsampled_logits(size: tuple[int, int]) -> None:
    """As the authors of RF-DETR do; pixels may differ only where the logit is all but 0."""
    coarse = torch.randn(200, 1, 5, 4, generator=torch.Generator().manual_seed(0)) * 3
    logits = F.interpolate(coarse, size=(16, 12), mode="bicubic")[:, 0]
    logits[::4] -= 4  # most of them are of a part of the image
    logits[::5], logits[1::5] = -logits[::5].abs() - 1, logits[1::5].abs() + 1
    boxes = np.tile(np.array([[0, 0, size[1], size[0]]], dtype=np.float32), (200, 1))
    pasted = paste_masks(logits.sigmoid().numpy(), boxes, size, region="image")
    expected = F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    masks = torch.from_numpy(np.stack([decode_rle(mask) for mask in pasted]))
    differ = masks != (expected > 0)
    assert not differ.any() or expected[differ].abs().max() < 1e-3
    assert differ.sum() <= 1e-4 * differ.numel()
    assert not masks[::5].any()
    assert masks[1::5].all()


def test_masks_of_the_image_from_cells_that_are_certain() -> None:
    """Probabilities of 0 and 1 have no logit; what lies beyond the region is as its outermost cell."""
    probabilities = np.zeros((1, 2, 2), np.float32)
    probabilities[:, :, 1] = 1
    (mask,) = paste_masks(probabilities, np.array([[2, 2, 10, 10]], np.float32), (12, 14), region="image")
    pixels = decode_rle(mask)
    assert pixels[:, 8:].all()
    assert not pixels[:, :6].any()
    assert paste_masks(probabilities[:0], np.zeros((0, 4), np.float32), (12, 14), region="image") == ()
