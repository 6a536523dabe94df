"""Objects found in regions, where images end within a cell."""

from __future__ import annotations

import torch

from boxwright.regions.decode import Found, in_original_pixels, within_images
from boxwright.structures import ImageSize


def test_what_has_no_area_within_its_image_is_left_out() -> None:
    row = [[0.0, 0, 10, 10], [90, 0, 110, 60], [102, 0, 110, 60], [101.995, 0, 110, 60], [5, 51, 9, 56], [0, 0, 1, 1]]
    boxes = torch.tensor([row, row])
    valid = torch.tensor([True, True, True, True, True, False]).repeat(2, 1)
    found = Found(boxes, torch.rand(2, 6), torch.arange(6).repeat(2, 1), valid)
    sizes = [ImageSize(100, 204, 50, 102), ImageSize(60, 120, 60, 120)]
    inside = within_images(found, sizes)
    assert inside.valid.tolist() == [[True, True] + [False] * 4, [True] * 5 + [False]]
    assert all(given.equal(kept) for given, kept in zip(found[:3], inside[:3], strict=True))
    first, second = in_original_pixels(inside, sizes)
    torch.testing.assert_close(first.boxes, torch.tensor([[0.0, 0, 20, 20], [180, 0, 204, 100]]))
    torch.testing.assert_close(second.boxes, boxes[1, :5])
