"""PAFPN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from boxwright.necks.fpn import FPN
from boxwright.necks.pafpn import PAFPN
from boxwright.structures import Features, Level, Spec

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)}
WIRINGS = pytest.mark.parametrize("wiring", ["paper", "mmdet"])


def small(spec: Spec = SPEC, **options: Any) -> PAFPN:
    torch.manual_seed(0)
    return PAFPN(spec, **({"out_channels": 5} | options)).eval()


def maps(height: int, width: int, spec: Spec = SPEC, batch: int = 2) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def assert_equal(actual: Features, *expected: Tensor) -> None:
    for ours, written_out in zip(actual.values(), expected, strict=True):
        torch.testing.assert_close(ours, written_out, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (100, 75), (8, 8)])
def test_paper_builds_on_the_finished_level_with_relu(height: int, width: int) -> None:
    neck, features = small(), maps(height, width)
    p3, p4, p5 = neck.pyramid(features).values()
    n4 = neck.fuse["c4"](neck.downsample["c4"](p3).relu() + p4).relu()
    n5 = neck.fuse["c5"](neck.downsample["c5"](n4).relu() + p5).relu()
    assert_equal(neck(features), p3, n4, n5)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (100, 75), (8, 8)])
def test_mmdet_builds_on_the_sum_without_relu(height: int, width: int) -> None:
    neck, features = small(wiring="mmdet"), maps(height, width)
    p3, p4, p5 = neck.pyramid(features).values()
    m4 = p4 + neck.downsample["c4"](p3)
    m5 = p5 + neck.downsample["c5"](m4)
    assert_equal(neck(features), p3, neck.fuse["c4"](m4), neck.fuse["c5"](m5))


@WIRINGS
def test_published_parameter_counts(wiring: str) -> None:
    spec = {f"c{i}": Level(channels, 2**i) for i, channels in zip(range(2, 6), (256, 512, 1024, 2048), strict=True)}
    with torch.device("meta"):
        neck = PAFPN(spec, wiring=wiring)  # type: ignore[arg-type]
    count = sum(p.numel() for p in neck.parameters())
    assert count == 6_884_864
    assert count - sum(p.numel() for p in neck.pyramid.parameters()) == 3_540_480


@WIRINGS
def test_one_level_has_no_path_up(wiring: str) -> None:
    spec, features = {"c5": SPEC["c5"]}, maps(64, 96, {"c5": SPEC["c5"]})
    neck, fpn = small(spec, wiring=wiring, extra_levels=2), FPN(spec, out_channels=5, extra_levels=2)
    fpn.load_state_dict(neck.state_dict())
    assert_equal(neck(features), *fpn(features).values())


@WIRINGS
def test_levels_of_equal_stride(wiring: str) -> None:
    spec = {"c4": SPEC["c4"], "c5": Level(10, 16)}
    levels = small(spec, wiring=wiring)(maps(100, 75, spec))
    assert [tuple(x.shape) for x in levels.values()] == [(2, 5, 7, 5)] * 2


@pytest.mark.parametrize("wiring", ["paper", "mmdet"])
@pytest.mark.parametrize("extra", ["max_pool", "conv_input", "conv_output"])
def test_extra_levels_are_made_after_the_path_up(wiring: str, extra: str) -> None:
    neck, features = small(wiring=wiring, extra_levels=2, extra=extra), maps(64, 96)
    levels = neck(features)
    assert neck.out_spec == {
        f"c{i}": Level(5, stride) for i, stride in zip(range(3, 8), (8, 16, 32, 64, 128), strict=True)
    }
    expected = neck.extra(features["c5"], levels["c5"])
    assert_equal({name: levels[name] for name in ("c6", "c7")}, *expected.values())


@WIRINGS
def test_exports_with_a_free_batch(wiring: str) -> None:
    neck = small(wiring=wiring, extra_levels=1)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(neck, (maps(100, 75),), dynamic_shapes=({name: {0: batch} for name in SPEC},))
    more = maps(100, 75, batch=3)
    assert_equal(program.module()(more), *neck(more).values())


@pytest.mark.usefixtures("unchecked")
def test_unknown_wiring_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wiring is one of \['paper', 'mmdet'\], not 'panet'"):
        PAFPN(SPEC, wiring="panet")  # type: ignore[arg-type]


def test_strides_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(ValueError, match="stride 12 of c4 is no multiple of 8, the level before"):
        PAFPN({"c3": Level(6, 8), "c4": Level(8, 12)})
