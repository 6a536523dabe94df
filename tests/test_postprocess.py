"""From decoded boxes and masks to detections in pixels of the original images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from boxwright.data.input_format import InputFormat
from boxwright.detector import Detector
from boxwright.ops.masks import decode_mask
from boxwright.structures import Category, Decoded, ImageSize


class FixedHead(nn.Module):
    """A head whose output is decoded already."""

    def decode(self, output: Decoded) -> Decoded:
        return output


def postprocess(decoded: Decoded, sizes: list[ImageSize]) -> Any:
    categories = [Category(i, f"class {i}") for i in range(6)]
    detector = Detector(nn.Identity(), [], FixedHead(), categories=categories, input_format=InputFormat())
    return detector.postprocess(decoded, sizes)


def test_boxes_without_an_area_within_their_image_are_dropped() -> None:
    row = [[0.0, 0, 10, 10], [90, 0, 110, 60], [102, 0, 110, 60], [101.995, 0, 110, 60], [5, 51, 9, 56], [0, 0, 1, 1]]
    boxes = torch.tensor([row, row])
    valid = torch.tensor([True, True, True, True, True, False]).repeat(2, 1)
    scores = torch.rand(2, 6).sort(descending=True).values
    sizes = [ImageSize(100, 204, 50, 102), ImageSize(60, 120, 60, 120)]
    first, second = postprocess(Decoded(boxes, scores, torch.arange(6).repeat(2, 1), valid), sizes)
    torch.testing.assert_close(first.boxes, torch.tensor([[0.0, 0, 20, 20], [180, 0, 204, 100]]))
    assert first.labels.tolist() == [0, 1]
    assert torch.equal(first.scores, scores[0, :2])
    torch.testing.assert_close(second.boxes, boxes[1, :5])


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("right", [80.0, 103.5, 120.0])
def test_a_mask_is_of_all_of_its_box_also_beyond_the_image(right: float, scale: int) -> None:
    # An image 102 pixels wide and 104 high; cells of the levels reach to 128.
    boxes = torch.tensor([[[60.0, 20, right, 60], [110, 20, 120, 60], [60, 20, right, 60], [20, 105, 60, 128]]])
    valid = torch.tensor([[True, True, False, True]])
    masks = torch.zeros(1, 4, 28, 28)
    masks[..., :14] = 1.0
    decoded = Decoded(boxes, torch.full((1, 4), 0.5), torch.zeros(1, 4, dtype=torch.int64), valid, masks)
    (detections,) = postprocess(decoded, [ImageSize(104 * scale, 102 * scale, 104, 102)])
    # Boxes that lie beyond the image are dropped, and the others cut to it.
    expected: Tensor = torch.tensor([[60.0, 20, min(right, 102), 60]]) * scale
    torch.testing.assert_close(detections.boxes, expected)
    (mask,) = detections.masks
    rows, columns = torch.where(decode_mask(mask))
    assert decode_mask(mask).shape == (104 * scale, 102 * scale)
    middle = (60 + right) / 2 * scale
    assert abs(columns.min() - 60 * scale) <= 1
    assert abs(columns.max() + 1 - middle) <= 1
    assert abs(rows.min() - 20 * scale) <= 1
    assert abs(rows.max() + 1 - 60 * scale) <= 1
