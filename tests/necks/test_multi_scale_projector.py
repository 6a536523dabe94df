"""Multi-scale projector."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.folding import fold_norms, unfolded_norms
from boxwright.necks.multi_scale_projector import C2f, MultiScaleProjector
from boxwright.structures import Level, Spec
from random_weights import shake

TWO: Spec = {"block2": Level(6, 16), "block3": Level(4, 16)}


def small(spec: Spec = TWO, **options: Any) -> MultiScaleProjector:
    torch.manual_seed(0)
    return MultiScaleProjector(spec, **({"out_channels": 4, "num_blocks": 2} | options)).double().eval()


def make_maps(height: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(2, level.channels, height, width, generator=generator, dtype=torch.float64)
        for name, level in TWO.items()
    }


def layer(parts: nn.Module, x: Tensor) -> Tensor:
    """A convolution, a norm over the channels, SiLU; written out."""
    conv = parts[0]  # type: ignore[index]
    x = F.conv2d(x, conv.weight, padding=conv.weight.shape[-1] // 2)
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    return x * x.sigmoid()


def test_a_block_mixes_both_halves_and_every_bottleneck() -> None:
    neck, maps = small(scales=(1.0,)), make_maps(5, 3)
    block = neck.fuse["c4"][0]
    first, second = layer(block.split, torch.cat([*maps.values()], 1)).chunk(2, 1)
    third = layer(block.blocks[0][1], layer(block.blocks[0][0], second))
    fourth = layer(block.blocks[1][1], layer(block.blocks[1][0], third))
    mixed = layer(block.mix, torch.cat((first, second, third, fourth), 1))
    normed = (mixed - mixed.mean(1, keepdim=True)) / (mixed.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(neck(maps)["c4"], normed)


def test_each_map_is_resampled_by_itself() -> None:
    neck, maps = small(scales=(2.0, 0.5)), make_maps(5, 3)
    assert neck.out_spec == {"c3": Level(4, 8), "c5": Level(4, 32)}
    fine = torch.cat([up[0](x) for up, x in zip(neck.resample["c3"], maps.values(), strict=True)], 1)
    assert fine.shape == (2, 5, 10, 6)
    coarse = torch.cat([down(x) for down, x in zip(neck.resample["c5"], maps.values(), strict=True)], 1)
    assert coarse.shape == (2, 10, 3, 2)
    assert coarse.min() == 0
    levels = neck(maps)
    torch.testing.assert_close(levels["c3"], neck.fuse["c3"](fine))
    torch.testing.assert_close(levels["c5"], neck.fuse["c5"](coarse))


def test_published_parameter_count() -> None:
    """RF-DETR's of four maps of DINOv2-S at one scale."""
    with torch.device("meta"):
        neck = MultiScaleProjector({f"block{i}": Level(384, 16) for i in (2, 5, 8, 11)}, scales=(1.0,))
    assert sum(p.numel() for p in neck.parameters()) == 1_444_864


def test_batch_norms_are_folded_without_a_change() -> None:
    neck = small(norm="batch")
    shake(neck)
    before = neck(make_maps(5, 3))
    assert len(unfolded_norms(neck)) == 3 * 6 + 2
    fold_norms(neck)
    assert unfolded_norms(neck) == []
    for name, level in neck(make_maps(5, 3)).items():
        torch.testing.assert_close(level, before[name])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_channels": 1}, "out_channels is at least 2, not 1"),
        ({"num_blocks": 0}, "num_blocks is at least 1, not 0"),
        ({"norm": "group"}, r"norm is one of \['layer', 'batch'\], not 'group'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_an_odd_width_leaves_two_halves_inside() -> None:
    assert C2f(6, 5, 1, "layer")(torch.zeros(1, 6, 2, 2)).shape == (1, 5, 2, 2)
