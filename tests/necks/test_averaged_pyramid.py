"""Averaging pyramid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.necks.averaged_pyramid import AveragedPyramid
from boxwright.structures import Level, Spec

TWO: Spec = {"block2": Level(1, 16), "block3": Level(1, 16)}


def make_maps(height: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 1, height, width, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_levels_are_the_mean_upsampled_and_averaged() -> None:
    neck = AveragedPyramid(TWO).double().eval()
    with torch.no_grad():
        neck.project["c5"].conv.weight.fill_(3)
        neck.project["c5"].norm.bias.fill_(0.5)
    one, two = make_maps(3, 5)
    mean = (one + two) / 2
    levels = neck({"block2": one, "block3": two})
    assert list(levels) == ["c3", "c4", "c5"]
    torch.testing.assert_close(levels["c4"], mean)
    # Cells between others take 3/4 of the nearer one, along each side.
    fine = levels["c3"]
    assert fine.shape == (2, 1, 6, 10)
    torch.testing.assert_close(fine[..., 0, 0], mean[..., 0, 0])
    torch.testing.assert_close(fine[..., 0, 1], 0.75 * mean[..., 0, 0] + 0.25 * mean[..., 0, 1])
    torch.testing.assert_close(fine[..., 2, 0], 0.25 * mean[..., 0, 0] + 0.75 * mean[..., 1, 0])
    # The last row and column have no neighbor to be averaged with.
    coarse = (levels["c5"] - 0.5) / 3 * (1 + neck.project["c5"].norm.eps) ** 0.5
    assert coarse.shape == (2, 1, 2, 3)
    torch.testing.assert_close(coarse[..., 0, 0], mean[..., :2, :2].mean((-2, -1)))
    torch.testing.assert_close(coarse[..., 1, 2], mean[..., 2, 4])


def test_only_the_coarsest_level_has_a_convolution_at_the_width_of_the_maps() -> None:
    neck = AveragedPyramid({"block10": Level(192, 16), "block11": Level(192, 16)})
    assert neck.out_spec == {"c3": Level(192, 8), "c4": Level(192, 16), "c5": Level(192, 32)}
    assert sum(p.numel() for p in neck.parameters()) == 192 * 192 + 2 * 192


def test_a_width_gives_each_level_a_convolution() -> None:
    neck = AveragedPyramid({"block10": Level(192, 16), "block11": Level(192, 16)}, out_channels=256)
    assert neck.out_spec == {"c3": Level(256, 8), "c4": Level(256, 16), "c5": Level(256, 32)}
    assert sum(p.numel() for p in neck.parameters()) == 3 * (192 * 256 + 2 * 256)


def test_narrow_levels_are_widened_before_they_are_averaged() -> None:
    neck = AveragedPyramid({"c3": Level(4, 8), "c4": Level(6, 16)}, scales=(2.0, 1.0)).eval()
    assert [type(widen) for widen in neck.widen] == [ConvNorm, nn.Identity]
    fine, coarse = torch.randn(1, 4, 5, 3), torch.randn(1, 6, 3, 2)
    levels = neck({"c3": fine, "c4": coarse})
    averaged = nn.functional.avg_pool2d(fine, 2, ceil_mode=True)
    torch.testing.assert_close(levels["c4"], neck.project["c4"]((neck.widen[0](averaged) + coarse) / 2))
    assert levels["c3"].shape == (1, 6, 5, 3)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="out_channels is at least 1, not 0"):
        AveragedPyramid(TWO, out_channels=0)
