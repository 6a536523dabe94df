"""AugFPN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from boxwright.necks.augfpn import AugFPN, PooledContext, pooled_size
from boxwright.necks.fpn import FPN
from boxwright.structures import Features, Level, Spec, head_levels

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)}


def small(spec: Spec = SPEC, **options: Any) -> AugFPN:
    torch.manual_seed(0)
    return AugFPN(spec, **({"out_channels": 5} | options)).eval()


def maps(height: int, width: int, spec: Spec = SPEC, batch: int = 2) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def fpn_beside(neck: AugFPN, **options: Any) -> FPN:
    """An FPN with the same pyramid."""
    fpn = FPN(SPEC, out_channels=5, **options)
    fpn.load_state_dict({key: x for key, x in neck.state_dict().items() if not key.startswith("context")})
    return fpn


def test_published_pooled_sizes() -> None:
    assert [pooled_size(25, 34, ratio) for ratio in (0.1, 0.2, 0.3)] == [(2, 3), (5, 6), (7, 10)]
    assert [pooled_size(2, 34, ratio) for ratio in (0.1, 1.0)] == [(1, 3), (2, 34)]


def test_published_parameter_counts() -> None:
    spec = {f"c{i}": Level(channels, 2**i) for i, channels in zip(range(2, 6), (256, 512, 1024, 2048), strict=True)}
    with torch.device("meta"):
        neck = AugFPN(spec)
    assert neck.context is not None
    assert sum(p.numel() for p in neck.context.parameters()) == 1_777_411
    assert sum(p.numel() for p in neck.parameters()) == 5_121_795


def test_context_is_the_formula_written_out() -> None:
    torch.manual_seed(0)
    context, x = PooledContext(10, 5, (0.1, 0.2, 0.3)), torch.randn(2, 10, 25, 34)
    pooled = []
    for project, (rows, columns) in zip(context.project, [(2, 3), (5, 6), (7, 10)], strict=True):
        means = torch.empty(2, 10, rows, columns)
        for i in range(rows):
            for j in range(columns):
                # Cells overlap where the size does not divide.
                part = x[
                    :, :, 25 * i // rows : -(-25 * (i + 1) // rows), 34 * j // columns : -(-34 * (j + 1) // columns)
                ]
                means[:, :, i, j] = part.mean((2, 3))
        pooled.append(F.interpolate(project(means), size=(25, 34), mode="bilinear", align_corners=True))
    first, _, last = context.weigh
    weights = last(first(torch.cat(pooled, 1)).relu()).sigmoid()
    expected = weights[:, :1] * pooled[0] + weights[:, 1:2] * pooled[1] + weights[:, 2:] * pooled[2]
    torch.testing.assert_close(context(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (100, 75), (8, 8)])
def test_context_is_added_to_the_coarsest_lateral_before_the_path_down(height: int, width: int) -> None:
    neck, features = small(), maps(height, width)
    laterals = neck.pyramid.laterals(features)
    top = laterals | {"c5": laterals["c5"] + neck.context(features["c5"])}
    expected = neck.pyramid.smooth_levels(neck.pyramid.top_down(top))
    levels, plain = neck(features), fpn_beside(neck)(features)
    for name in SPEC:
        torch.testing.assert_close(levels[name], expected[name], rtol=0, atol=1e-6)
        assert (levels[name] - plain[name]).abs().max() > 1e-2


def test_without_context_it_is_fpn() -> None:
    neck, features = small(extra_levels=2, extra="conv_output", extra_context=True), maps(100, 75)
    for project in neck.context.project:
        torch.nn.init.zeros_(project.weight)
    levels, plain = neck(features), fpn_beside(neck, extra_levels=2, extra="conv_output")(features)
    assert head_levels(neck.out_spec) == list(plain)
    for name, level in plain.items():
        torch.testing.assert_close(levels[name], level, rtol=0, atol=1e-6)


def test_laterals_without_context_are_auxiliary_levels() -> None:
    neck, features = small(extra_levels=1), maps(64, 96)
    assert neck.out_spec == {
        "c3": Level(5, 8),
        "c3_lateral": Level(5, 8, auxiliary=True),
        "c4": Level(5, 16),
        "c4_lateral": Level(5, 16, auxiliary=True),
        "c5": Level(5, 32),
        "c5_lateral": Level(5, 32, auxiliary=True),
        "c6": Level(5, 64),
    }
    assert head_levels(neck.out_spec) == ["c3", "c4", "c5", "c6"]
    levels, laterals = neck(features), neck.pyramid.laterals(features)
    for name, lateral in laterals.items():
        torch.testing.assert_close(levels[f"{name}_lateral"], lateral, rtol=0, atol=0)


@pytest.mark.parametrize("extra", ["max_pool", "conv_input", "conv_output"])
def test_extra_context_is_the_mean_of_the_context(extra: str) -> None:
    options = {"extra_levels": 2, "extra": extra}
    neck, features = small(extra_context=True, **options), maps(128, 96)
    with_context, without = neck(features), small(**options)(features)
    mean = neck.context(features["c5"]).mean((2, 3), keepdim=True)
    torch.testing.assert_close(with_context["c5"], without["c5"], rtol=0, atol=0)
    torch.testing.assert_close(with_context["c6"], without["c6"] + mean, rtol=0, atol=1e-5)
    assert (with_context["c7"] - without["c7"]).abs().max() > 1e-3


@pytest.mark.parametrize("spec", [{"c5": SPEC["c5"]}, {"c4": SPEC["c4"], "c5": Level(10, 16)}], ids=["one", "equal"])
def test_one_level_and_levels_of_equal_stride(spec: Spec) -> None:
    neck, features = small(spec, extra_levels=1), maps(100, 75, spec)
    levels = neck(features)
    assert list(levels) == list(neck.out_spec)
    for name, level in neck.out_spec.items():
        assert levels[name].shape == (2, 5, -(-100 // level.stride), -(-75 // level.stride))
    sum(x.square().sum() for x in levels.values()).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_exports_with_a_free_batch() -> None:
    neck = small(extra_levels=2, extra="conv_input", extra_context=True)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(neck, (maps(800, 600),), dynamic_shapes=({name: {0: batch} for name in SPEC},))
    more = maps(800, 600, batch=3)
    expected, actual = neck(more), program.module()(more)
    assert list(actual) == list(expected)
    for name, level in expected.items():
        torch.testing.assert_close(actual[name], level, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ratios", [(0.1, 0.0), (1.5,)])
def test_bad_ratios_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"pool_ratios are numbers in \(0, 1\], not \("):
        AugFPN(SPEC, pool_ratios=ratios)


def test_without_ratios_it_is_fpn_with_laterals() -> None:
    """AugFPN's consistent supervision alone: laterals to train on, and nothing that changes the levels."""
    neck, features = small(pool_ratios=(), extra_levels=1), maps(128, 96)
    assert neck.context is None
    levels, expected = neck(features), fpn_beside(neck, extra_levels=1)(features)
    assert list(levels) == ["c3", "c3_lateral", "c4", "c4_lateral", "c5", "c5_lateral", "c6"]
    for name, level in expected.items():
        torch.testing.assert_close(levels[name], level, rtol=0, atol=0)
    for name, lateral in neck.pyramid.laterals(features).items():
        torch.testing.assert_close(levels[f"{name}_lateral"], lateral, rtol=0, atol=0)
    with pytest.raises(ValueError, match="extra_context adds the mean of the context, and without pool_ratios there"):
        AugFPN(SPEC, pool_ratios=(), extra_levels=1, extra_context=True)


def test_extra_context_needs_a_level() -> None:
    with pytest.raises(ValueError, match="extra_context needs extra_levels of at least 1, not 0"):
        AugFPN(SPEC, extra_context=True)
