"""Masks as mmdetection pastes them, and as we do: what a detector of its files shows otherwise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.ops.masks import decode_mask
from boxwright_runtime.mask_pasting import paste_masks

HEIGHT, WIDTH = 240, 320


def paste_as_mmdetection(probabilities: Tensor, box: Tensor) -> Tensor:
    """Sample a mask at the centers of the image's pixels, in its box as it is: mmdetection 3.3, fcn_mask_head.py."""
    left, top, right, bottom = box
    y = (torch.arange(HEIGHT) + 0.5 - top) / (bottom - top) * 2 - 1
    x = (torch.arange(WIDTH) + 0.5 - left) / (right - left) * 2 - 1
    grid = torch.stack((x[None].expand(HEIGHT, WIDTH), y[:, None].expand(HEIGHT, WIDTH)), -1)
    return F.grid_sample(probabilities[None, None], grid[None], align_corners=False)[0, 0] >= 0.5


@pytest.mark.parametrize(("side", "overlap"), [(16, 0.89), (40, 0.93), (100, 0.97), (200, 0.98)])
def test_outlines_differ_as_documented(side: int, overlap: float) -> None:
    """The numbers of docs/weights.md: median IoU of the masks of both, by the side of the box."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(60, 1, 5, 5, generator=generator) * 4 + 1
    probabilities = F.interpolate(coarse, (28, 28), mode="bicubic")[:, 0].sigmoid()
    sides = side * (0.7 + 0.6 * torch.rand(60, 2, generator=generator))
    corners = torch.rand(60, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides).clamp(min=0)
    boxes = torch.cat((corners, corners + sides), 1)
    overlaps = []
    pasted = paste_masks(probabilities.numpy(), boxes.numpy(), (HEIGHT, WIDTH))
    for probability, box, rle in zip(probabilities, boxes, pasted, strict=True):
        ours, theirs = torch.as_tensor(decode_mask(rle)).bool(), paste_as_mmdetection(probability, box)
        overlaps.append(float((ours & theirs).sum() / (ours | theirs).sum().clamp(min=1)))
    assert torch.tensor(overlaps).median() == pytest.approx(overlap, abs=0.02)
