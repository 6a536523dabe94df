"""Anchors, against torchvision's and by hand."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from boxwright.ops.anchors import anchor_steps, grid_anchors, level_anchors, octave_anchors, pyramid_anchors

RATIOS = (0.5, 1.0, 2.0)


@pytest.mark.parametrize("side", [32.0, 64.0, 128.0, 256.0, 512.0, 20.0])
def test_whole_pixels_are_torchvisions(side: float) -> None:
    sizes = tuple(int(side * 2 ** (i / 3)) for i in range(3))
    (expected,) = AnchorGenerator((sizes,), (RATIOS,)).cell_anchors
    torch.testing.assert_close(octave_anchors(side, 3, RATIOS, whole_pixels=True), expected, rtol=0, atol=0)


def test_exact_anchors() -> None:
    anchors = octave_anchors(32.0, 3, RATIOS)
    sides = anchors[:, 2:] - anchors[:, :2]
    # As in mmdetection 3.3.0 with octave_base_scale=4, scales_per_octave=3 and stride 8.
    expected = [(45.2548, 22.6274), (57.0175, 28.5088), (71.8376, 35.9188), (32, 32), (40.3175, 40.3175)]
    torch.testing.assert_close(sides[:5], torch.tensor(expected), rtol=0, atol=1e-3)
    torch.testing.assert_close(sides.prod(1).view(3, 3)[0], 1024 * 4 ** (torch.arange(3) / 3))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor(RATIOS).repeat_interleave(3))
    assert (anchors[:, :2] == -anchors[:, 2:]).all()


def test_grids_are_torchvisions() -> None:
    base = octave_anchors(32.0, 3, RATIOS, whole_pixels=True)
    generator = AnchorGenerator(((32, 40, 50),), (RATIOS,))
    (expected,) = generator(ImageList(torch.zeros(1, 3, 24, 40), [(24, 40)]), [torch.zeros(1, 1, 3, 5)])
    torch.testing.assert_close(grid_anchors(base, 3, 5, 8), expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(800, 1088), (832, 416), (256, 384), (32, 64)])
def test_steps_of_the_padded_input_are_torchvisions(size: tuple[int, int]) -> None:
    strides = (8, 16, 32, 64, 128)
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
    bases = [octave_anchors(4.0 * stride, 3, RATIOS, whole_pixels=True) for stride in strides]
    steps = anchor_steps(shapes, strides, "padded_input")
    ours = pyramid_anchors(torch.stack(bases), shapes, strides, "padded_input")
    generator = AnchorGenerator(
        tuple(tuple(int(4 * stride * 2 ** (i / 3)) for i in range(3)) for stride in strides), (RATIOS,) * 5
    )
    maps = [torch.zeros(1, 1, *shape) for shape in shapes]
    (expected,) = generator(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    torch.testing.assert_close(torch.cat(ours), expected, rtol=0, atol=0)
    assert anchor_steps(shapes, strides, "level") == [(stride, stride) for stride in strides]
    if size == (800, 1088):
        assert steps[3:] == [(61, 64), (114, 120)]


def test_anchors_of_levels_are_those_of_each() -> None:
    bases, shapes, strides = torch.stack([octave_anchors(s, 1, RATIOS) for s in (8.0, 16.0)]), [(5, 3), (3, 2)], (8, 16)
    each = [grid_anchors(base, *shape, s) for base, shape, s in zip(bases, shapes, strides, strict=True)]
    ours = pyramid_anchors(bases, shapes, strides, "level")
    for level, expected in zip(ours, each, strict=True):
        torch.testing.assert_close(level, expected, rtol=0, atol=0)
    # Half precision would round positions beyond 2,048 pixels.
    assert pyramid_anchors(bases.half(), shapes, strides, "level")[0].dtype == torch.float32


def test_all_anchors_of_a_cell_follow_one_another_row_by_row() -> None:
    base = torch.tensor([[-1.0, -2, 1, 2], [-2, -1, 2, 1]])
    actual = grid_anchors(base, 2, 3, 10)
    assert actual.shape == (12, 4)
    assert actual[:3].tolist() == [[-1, -2, 1, 2], [-2, -1, 2, 1], [9, -2, 11, 2]]
    assert actual[6].tolist() == [-1, 8, 1, 12]
    assert grid_anchors(base.double(), 1, 1, 4).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 3, RATIOS), "positive scale"),
        ((8.0, 0, RATIOS), "0 steps"),
        ((8.0, 3, ()), r"ratios \[\]"),
        ((8.0, 3, (1.0, -1.0)), r"ratios \[1.0, -1.0\]"),
        ((0.5, 3, RATIOS), "anchors of 0.5 pixels have no area in whole pixels"),
    ],
    ids=str,
)
def test_bad_anchors(arguments: tuple[float, int, tuple[float, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        octave_anchors(*arguments, whole_pixels=True)


def test_levels_have_anchors_of_their_stride_on_the_default_device() -> None:
    def make(stride: int) -> Float[Tensor, "a 4"]:
        return octave_anchors(4.0 * stride, 2, (0.5, 1.0))

    anchors = level_anchors([8, 16], make)
    assert anchors.shape == (2, 4, 4)
    assert anchors[0].equal(make(8))
    assert anchors[1].equal(make(16))
    with torch.device("meta"):
        outline = level_anchors([8, 16], make)
    assert (outline.device.type, outline.shape, outline.dtype) == ("meta", anchors.shape, anchors.dtype)
