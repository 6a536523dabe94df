"""Masks of decoded boxes in pixels of the original images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from boxwright.detector import Detector
from boxwright.ops.masks import decode_mask
from boxwright.original_pixels import restore_images
from boxwright.structures import Category, Decoded, ImageSize
from boxwright_runtime.input_format import InputFormat


class FixedHead(nn.Module):
    """A head whose output is decoded already."""

    mask_region = "box"

    def decode(self, output: Decoded) -> Decoded:
        return output


def postprocess(decoded: Decoded, sizes: list[ImageSize]) -> Any:
    categories = [Category(i, f"class {i}") for i in range(6)]
    detector = Detector(nn.Identity(), [], FixedHead(), categories=categories, input_format=InputFormat())
    return detector.postprocess(decoded, sizes)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("right", [80.0, 103.5, 120.0])
def test_a_mask_is_of_all_of_its_box_also_beyond_the_image(right: float, scale: int) -> None:
    # An image 102 pixels wide and 104 high; cells of the levels reach to 128.
    boxes = torch.tensor([[[60.0, 20, right, 60], [60, 20, right, 60]]])
    valid = torch.tensor([[True, False]])
    masks = torch.zeros(1, 2, 28, 28)
    masks[..., :14] = 1.0
    decoded = Decoded(boxes, torch.full((1, 2), 0.5), torch.zeros(1, 2, dtype=torch.int64), valid, masks, boxes)
    (detections,) = postprocess(decoded, [ImageSize(104 * scale, 102 * scale, 104, 102)])
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


@pytest.mark.parametrize(("resize", "size"), [("square", (100, 60)), ("letterbox", (60, 100))])
def test_masks_of_the_image_leave_its_padding_out(resize: Any, size: tuple[int, int]) -> None:
    """Cells of the left half of the image inside its padding are its left half at whatever size."""
    input_format = InputFormat(image_size=64, resize=resize)
    height, width = size
    inside = input_format.input_size(height, width)
    masks = torch.full((1, 1, 16, 16), 0.1)
    masks[..., : round(inside[1] / 8)] = 0.9
    region = torch.tensor([[[0.0, 0.0, 64.0, 64.0]]])
    decoded = Decoded(
        region, torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1) > 0, masks, region
    )
    sizes = [ImageSize(height, width, *inside)]
    (one,) = restore_images(decoded, sizes, input_format, (Category(0, "a"),), mask_region="image")
    assert one.masks is not None
    mask = decode_mask(one.masks[0])
    assert mask.shape == size
    assert mask[:, : width // 2 - 1].all()
    assert not mask[:, width // 2 + 1 :].any()


class SideHead(FixedHead):
    """Such a head that tells how far sides may be off."""

    mask_region = None

    def decode(self, output: Decoded) -> Decoded:
        return output._replace(sides_std=None)

    def measure_sides_std(self, output: Decoded) -> Tensor | None:
        return output.sides_std


def test_standard_deviations_of_sides_are_in_pixels_of_the_image() -> None:
    """The image is three times as wide as the network input, and twice as high."""
    boxes = torch.tensor([[[10.0, 10, 20, 20], [0, 0, 5, 5], [1, 1, 2, 2]]])
    valid = torch.tensor([[True, True, False]])
    std = torch.tensor([[[1.0, 2, 3, 4], [0.5, 0.5, 0.25, 0.25], [9, 9, 9, 9]]])
    scores, labels = torch.tensor([[0.9, 0.4, 0.0]]), torch.zeros(1, 3, dtype=torch.int64)
    decoded = Decoded(boxes, scores, labels, valid, sides_std=std)
    detector = Detector(nn.Identity(), [], SideHead(), categories=[Category(0, "class 0")], input_format=InputFormat())
    sizes = [ImageSize(64, 96, 32, 32)]
    (detections,) = detector.postprocess(decoded, sizes)
    assert detections.sides_std is None
    detector.tell_sides_std()
    (detections,) = detector.postprocess(decoded, sizes)
    expected = [[3.0, 4, 9, 8], [1.5, 1, 0.75, 0.5]]
    assert detections.sides_std.tolist() == expected
    (half,) = detector.postprocess(decoded._replace(boxes=boxes.half(), sides_std=std.half()), sizes)
    assert half.sides_std.tolist() == expected
    assert detections[1].sides_std == tuple(expected[1])
    assert detections.above(0.5).sides_std.tolist() == expected[:1]
    assert detections.cpu().to_dict()["sides_std"] == expected
    assert detections.calibrated([1.0], [0.0]).sides_std.tolist() == expected
    detector.tell_sides_std(False)
    assert detector.postprocess(decoded, sizes)[0].sides_std is None


def test_heads_without_distributions_are_refused() -> None:
    detector = Detector(nn.Identity(), [], FixedHead(), categories=[], input_format=InputFormat())
    with pytest.raises(ValueError, match="predicts no distributions, as sides_std needs: dfine's does"):
        detector.tell_sides_std()
