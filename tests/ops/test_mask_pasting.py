"""Masks of boxes on images, against torchvision's paste_masks_in_image."""

from __future__ import annotations

import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from boxwright.ops.boxes import clip_to_sizes
from boxwright.ops.mask_pasting import paste_masks
from boxwright.ops.masks import decode_mask


def test_equals_torchvision_at_any_box() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * torch.tensor([90.0, 60.0]) - 5
    sides = torch.rand(60, 2, generator=generator).pow(3) * 80
    boxes = clip_to_sizes(torch.cat((corners, corners + sides), 1)[None], torch.tensor([[60.0, 90.0]]))[0]
    boxes[0], boxes[1] = torch.tensor([10.0, 10, 10, 10]), torch.tensor([0.0, 0, 90, 60])
    probabilities = torch.rand(60, 28, 28, generator=generator)
    expected = paste_masks_in_image(probabilities[:, None], boxes, (60, 90))[:, 0]
    pasted = paste_masks(probabilities, boxes, (60, 90))
    assert [mask["size"] for mask in pasted] == [[60, 90]] * 60
    masks = torch.stack([decode_mask(mask) for mask in pasted])
    assert masks.any((1, 2)).sum() > 40
    assert torch.equal(masks, expected > 0.5)
    higher = paste_masks(probabilities, boxes, (60, 90), threshold=0.8)
    assert torch.equal(torch.stack([decode_mask(mask) for mask in higher]), expected > 0.8)


def test_none() -> None:
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (60, 90)) == ()


def test_what_lies_beyond_the_image_is_empty() -> None:
    boxes = torch.tensor([[95.0, 5, 120, 20], [5, 64, 20, 80], [-30, 5, -4, 20], [5, -40, 20, -10], [80, 50, 100, 70]])
    pasted = paste_masks(torch.ones(5, 28, 28), boxes, (60, 90))
    masks = torch.stack([decode_mask(mask) for mask in pasted])
    assert masks.any((1, 2)).tolist() == [False, False, False, False, True]
    assert masks[4, 50:, 80:].all()
