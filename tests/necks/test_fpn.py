"""FPN, against torchvision's with the same weights."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from boxwright.necks.fpn import FPN
from boxwright.structures import Features, Level, Spec
from conformance import compare_tensors, note_inputs

SPEC: Spec = {"c2": Level(6, 4), "c3": Level(8, 8), "c4": Level(10, 16)}
EVEN, ODD = ((16, 16), (8, 8), (4, 4)), ((13, 9), (7, 5), (4, 3))


def maps(sizes: tuple[tuple[int, int], ...]) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(2, level.channels, *size, generator=generator)
        for (name, level), size in zip(SPEC.items(), sizes, strict=True)
    }


def torchvisions(ours: FPN, blocks: ExtraFPNBlock | None = None) -> torchvision.ops.FeaturePyramidNetwork:
    theirs = torchvision.ops.FeaturePyramidNetwork([6, 8, 10], 5, blocks)
    for i, name in enumerate(SPEC):
        theirs.inner_blocks[i][0].load_state_dict(ours.pyramid.lateral[name].state_dict())
        theirs.layer_blocks[i][0].load_state_dict(ours.pyramid.smooth[name].state_dict())
    return theirs


def assert_equal(actual: Features, expected: Features) -> None:
    """Level by level; their names of extra levels are others."""
    note_inputs(list(actual.values()))
    for ours, theirs in zip(actual.values(), expected.values(), strict=True):
        compare_tensors("outputs", ours, theirs, limit=1e-5)


@pytest.mark.conforms("FPN", "torchvision")
@pytest.mark.parametrize("sizes", [EVEN, ODD], ids=["even", "odd"])
def test_equals_torchvisions(sizes: tuple[tuple[int, int], ...]) -> None:
    torch.manual_seed(0)
    ours, features = FPN(SPEC, out_channels=5), maps(sizes)
    actual = ours(features)
    assert list(actual) == ["c2", "c3", "c4"]
    assert_equal(actual, torchvisions(ours)(features))


@pytest.mark.conforms("FPN", "torchvision")
@pytest.mark.parametrize("sizes", [EVEN, ODD], ids=["even", "odd"])
def test_with_max_pool_equals_torchvisions(sizes: tuple[tuple[int, int], ...]) -> None:
    torch.manual_seed(0)
    ours, features = FPN(SPEC, out_channels=5, extra_levels=1), maps(sizes)
    actual = ours(features)
    assert list(actual) == ["c2", "c3", "c4", "c5"]
    assert_equal(actual, torchvisions(ours, LastLevelMaxPool())(features))


@pytest.mark.conforms("FPN", "torchvision")
@pytest.mark.parametrize("sizes", [EVEN, ODD], ids=["even", "odd"])
@pytest.mark.parametrize(("extra", "width"), [("conv_input", 10), ("conv_output", 5)])
def test_with_convolutions_equals_torchvisions(extra: str, width: int, sizes: tuple[tuple[int, int], ...]) -> None:
    torch.manual_seed(0)
    ours, features = FPN(SPEC, out_channels=5, extra_levels=2, extra=extra), maps(sizes)  # type: ignore[arg-type]
    blocks = LastLevelP6P7(width, 5)
    blocks.p6.load_state_dict(ours.extra.convs["c5"].state_dict())
    blocks.p7.load_state_dict(ours.extra.convs["c6"].state_dict())
    actual = ours(features)
    assert list(actual) == ["c2", "c3", "c4", "c5", "c6"]
    assert_equal(actual, torchvisions(ours, blocks)(features))


def test_specification() -> None:
    assert FPN(SPEC, out_channels=5, extra_levels=2).out_spec == {
        f"c{i}": Level(5, stride) for i, stride in zip(range(2, 7), (4, 8, 16, 32, 64), strict=True)
    }


def test_published_parameter_count() -> None:
    spec = {f"c{i}": Level(channels, 2**i) for i, channels in zip(range(2, 6), (256, 512, 1024, 2048), strict=True)}
    with torch.device("meta"):
        assert sum(p.numel() for p in FPN(spec).parameters()) == 3_344_384


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="out_channels is at least 1, not 0"):
        FPN(SPEC, out_channels=0)
    with pytest.raises(ValueError, match="extra_levels is at least 0, not -1"):
        FPN(SPEC, extra_levels=-1)
