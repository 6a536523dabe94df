"""Fusion of levels by convolutions."""

from __future__ import annotations

import torch
from torch import Tensor

from boxwright.layers.pyramid import LightPathAggregation


def levels(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, h, w, generator=generator) for h, w in sizes]


def test_is_the_paths_written_out() -> None:
    torch.manual_seed(0)
    paths = LightPathAggregation([8, 16, 32], 4).eval()
    x3, x4, x5 = levels((12, 8), (6, 4), (3, 2))

    def twice(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    down4 = x4 + twice(x5)
    out3 = paths.smooth[0](x3 + twice(down4))
    out4 = paths.smooth[1](down4 + paths.downsamples[0](out3))
    out5 = paths.smooth[2](x5 + paths.downsamples[1](out4))
    for ours, expected in zip(paths([x3, x4, x5]), (out3, out4, out5), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_is_five_convolutions_of_three_levels() -> None:
    with torch.device("meta"):
        paths = LightPathAggregation([8, 16, 32], 256)
    assert sum(p.numel() for p in paths.parameters()) == 5 * (256 * 256 * 9 + 2 * 256)


def test_steps_follow_the_strides_and_odd_sizes_pass() -> None:
    paths = LightPathAggregation([8, 16, 16], 4).eval()
    assert [conv.conv.stride for conv in paths.downsamples] == [(2, 2), (1, 1)]
    out = paths(levels((13, 9), (7, 5), (7, 5)))
    assert [tuple(x.shape[-2:]) for x in out] == [(13, 9), (7, 5), (7, 5)]


def test_one_level_is_only_smoothed() -> None:
    paths, (x,) = LightPathAggregation([32], 4).eval(), levels((3, 2))
    torch.testing.assert_close(paths([x])[0], paths.smooth[0](x), rtol=0, atol=0)
