"""DEIMv2's lite encoder."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from boxwright.necks.lite_encoder import LiteEncoder
from boxwright.structures import Level, Spec

ONE: Spec = {"c4": Level(12, 16)}


def small(spec: Spec = ONE) -> LiteEncoder:
    torch.manual_seed(0)
    return LiteEncoder(spec, hidden_dim=16, num_blocks=1).eval()


@pytest.mark.parametrize(
    ("channels", "hidden_dim", "count"), [(256, 64, 80_400), (512, 96, 196_352), (512, 112, 258_976)]
)
def test_published_parameter_counts(channels: int, hidden_dim: int, count: int) -> None:
    with torch.device("meta"):
        neck = LiteEncoder({"c4": Level(channels, 16)}, hidden_dim=hidden_dim)
    assert sum(p.numel() for p in neck.parameters()) == count
    assert neck.out_spec == {"c4": Level(hidden_dim, 16), "c5": Level(hidden_dim, 32)}


def test_is_the_two_paths_written_out() -> None:
    neck, x = small(), torch.randn(2, 12, 5, 6)
    c4 = neck.projections["c4"](x)
    c5 = neck.extra[1](F.avg_pool2d(c4, 3, 2, 1))
    c5 = neck.add_mean(c5 + c5.mean((2, 3), keepdim=True))
    fine = neck.down_blocks[0](c4 + F.interpolate(c5, size=(5, 6)))
    coarse = neck.up_blocks[0](c5 + neck.downsamples[0](fine))
    levels = neck({"c4": x})
    torch.testing.assert_close(levels["c4"], fine)
    torch.testing.assert_close(levels["c5"], coarse)


def test_several_levels_get_one_more() -> None:
    neck = small({"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)})
    levels = neck({"c3": torch.randn(1, 6, 13, 10), "c4": torch.randn(1, 8, 7, 5), "c5": torch.randn(1, 10, 4, 3)})
    assert {name: tuple(x.shape[1:]) for name, x in levels.items()} == {
        "c3": (16, 13, 10),
        "c4": (16, 7, 5),
        "c5": (16, 4, 3),
        "c6": (16, 2, 2),
    }


def test_a_width_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expansion leaves at least two of 16 channels, and 0\.1 does not"):
        LiteEncoder(ONE, hidden_dim=16, expansion=0.1)
