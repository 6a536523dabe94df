"""Simple feature pyramid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.necks.simple_pyramid import SimplePyramid
from boxwright.structures import Level, Spec

PLAIN: Spec = {"c4": Level(8, 16)}


def small(spec: Spec = PLAIN, **options: Any) -> SimplePyramid:
    torch.manual_seed(0)
    return SimplePyramid(spec, **({"out_channels": 5} | options)).double().eval()


def make_map(channels: int, height: int, width: int) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def smooth(neck: SimplePyramid, name: str, x: Tensor) -> Tensor:
    """Two convolutions, each with a norm over the channels, written out."""
    narrow, _, wide, _ = neck.smooth[name]
    for conv in (narrow, wide):
        x = F.conv2d(x, conv.weight, padding=conv.weight.shape[-1] // 2)
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    return x


def double_cells(conv: torch.nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Make four cells of each, by one matrix for each of them."""
    assert conv.bias is not None
    cells = torch.einsum("bchw,cdij->bdhiwj", x, conv.weight)
    return cells.reshape(len(x), -1, 2 * x.shape[2], 2 * x.shape[3]) + conv.bias[:, None, None]


def test_levels_are_the_map_upsampled_and_pooled() -> None:
    neck, x = small(), make_map(8, 5, 7)
    twice, _, _, again = neck.resample["c2"]
    x8 = double_cells(neck.resample["c3"][0], x)
    half = double_cells(twice, x)
    normed = (half - half.mean(1, keepdim=True)) / (half.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    x4 = double_cells(again, F.gelu(normed))
    # The last row and column have no neighbor to be pooled with.
    x32 = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2)
    levels = neck({"c4": x})
    assert list(levels) == ["c2", "c3", "c4", "c5"]
    for (name, level), resampled in zip(levels.items(), (x4, x8, x, x32), strict=True):
        torch.testing.assert_close(level, smooth(neck, name, resampled), rtol=0, atol=1e-10)


def test_published_parameter_count() -> None:
    with torch.device("meta"):
        neck = SimplePyramid({"c4": Level(768, 16)}, extra_levels=1)
    assert sum(p.numel() for p in neck.parameters()) == 5_560_000
    assert neck.out_spec == {f"c{i}": Level(256, 2**i) for i in range(2, 7)}


def test_the_extra_level_is_every_second_cell_of_the_coarsest() -> None:
    levels = small(extra_levels=1)({"c4": make_map(8, 9, 5)})
    assert torch.equal(levels["c6"], levels["c5"][..., ::2, ::2])


def test_maps_of_one_stride_are_one_map_side_by_side() -> None:
    two, one = small({"block3": Level(3, 16), "block7": Level(5, 16)}), small()
    one.load_state_dict(two.state_dict())
    x = make_map(8, 5, 7)
    pair = two({"block3": x[:, :3], "block7": x[:, 3:]}), one({"c4": x})
    for level, expected in zip(*(levels.values() for levels in pair), strict=True):
        torch.testing.assert_close(level, expected, rtol=0, atol=0)


def test_exports_with_a_free_batch() -> None:
    neck = small(extra_levels=1)
    batch = {"c4": {0: torch.export.Dim("batch")}}
    program = torch.export.export(neck, ({"c4": make_map(8, 5, 7)},), dynamic_shapes=(batch,))
    x = torch.cat((make_map(8, 5, 7), make_map(8, 5, 7)))
    for level, expected in zip(program.module()({"c4": x}).values(), neck({"c4": x}).values(), strict=True):
        torch.testing.assert_close(level, expected)


def test_out_channels_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="out_channels is at least 1, not 0"):
        SimplePyramid(PLAIN, out_channels=0)
