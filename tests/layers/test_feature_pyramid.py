"""Modules that the pyramid necks share, against torchvision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from boxwright.layers.feature_pyramid import ExtraLevels, FeaturePyramid, level_steps, reset_convolutions
from boxwright.structures import Level, Spec

SPEC: Spec = {"c4": Level(6, 16), "c5": Level(8, 32)}
SIZES = pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)], ids=["even", "odd", "one_cell"])


def coarsest(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels that come in and that go out."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 8, *size, generator=generator), torch.randn(2, 5, *size, generator=generator)


@SIZES
def test_max_pool_equals_torchvisions(size: tuple[int, int]) -> None:
    before, after = coarsest(size)
    levels = ExtraLevels(SPEC, 5, 1, "max_pool")(before, after)
    (_, expected), names = LastLevelMaxPool()([after], [before], ["c5"])
    assert [*levels, "pool"] == ["c6", *names[1:]]
    torch.testing.assert_close(levels["c6"], expected, rtol=0, atol=0)


def test_max_pool_takes_every_second_cell() -> None:
    before, after = coarsest((7, 5))
    levels = ExtraLevels(SPEC, 5, 2, "max_pool")(before, after)
    torch.testing.assert_close(levels["c6"], after[:, :, ::2, ::2], rtol=0, atol=0)
    torch.testing.assert_close(levels["c7"], after[:, :, ::4, ::4], rtol=0, atol=0)


@SIZES
@pytest.mark.parametrize("kind", ["conv_input", "conv_output"])
def test_convolutions_equal_torchvisions(kind: str, size: tuple[int, int]) -> None:
    before, after = coarsest(size)
    ours = ExtraLevels(SPEC, 5, 2, kind)  # type: ignore[arg-type]
    theirs = LastLevelP6P7(8 if kind == "conv_input" else 5, 5)
    theirs.p6.load_state_dict(ours.convs["c6"].state_dict())
    theirs.p7.load_state_dict(ours.convs["c7"].state_dict())
    (_, c6, c7), names = theirs([after], [before], ["c5"])
    levels = ours(before, after)
    assert list(levels) == ["c6", "c7"]
    assert names[1:] == ["p6", "p7"]
    torch.testing.assert_close(levels["c6"], c6, rtol=0, atol=0)
    torch.testing.assert_close(levels["c7"], c7, rtol=0, atol=0)


def test_without_a_relu_the_second_convolution_takes_the_first_as_it_is() -> None:
    before, after = coarsest((8, 6))
    extra = ExtraLevels(SPEC, 5, 2, "conv_input", relu=False)
    levels = extra(before, after)
    # mmdetection 3.3.0's FPN with relu_before_extra_convs=False, its default.
    torch.testing.assert_close(levels["c6"], extra.convs["c6"](before), rtol=0, atol=0)
    torch.testing.assert_close(levels["c7"], extra.convs["c7"](levels["c6"]), rtol=0, atol=0)
    extra.relu = True
    assert (extra(before, after)["c7"] - levels["c7"]).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["max_pool", "conv_input", "conv_output"])
def test_a_shift_reaches_the_first_extra_level_before_the_second_is_made(kind: str) -> None:
    before, after = coarsest((4, 4))
    torch.manual_seed(0)
    extra = ExtraLevels(SPEC, 5, 2, kind)  # type: ignore[arg-type]
    shift = torch.arange(5.0).view(1, 5, 1, 1).expand(2, 5, 1, 1)
    plain, shifted = extra(before, after), extra(before, after, shift)
    torch.testing.assert_close(shifted["c6"], plain["c6"] + shift)
    expected = shifted["c6"][:, :, ::2, ::2] if kind == "max_pool" else extra.convs["c7"](shifted["c6"].relu())
    torch.testing.assert_close(shifted["c7"], expected)


def test_specification_of_extra_levels() -> None:
    assert ExtraLevels(SPEC, 5, 0, "conv_input").out_spec == {}
    for kind in ("max_pool", "conv_input", "conv_output"):
        assert ExtraLevels(SPEC, 5, 2, kind).out_spec == {"c6": Level(5, 64), "c7": Level(5, 128)}  # type: ignore[arg-type]


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="out_channels is at least 1, not 0"):
        FeaturePyramid(SPEC, 0)
    with pytest.raises(ValueError, match="extra_levels is at least 0, not -1"):
        ExtraLevels(SPEC, 5, -1, "max_pool")


@pytest.mark.usefixtures("unchecked")
def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"extra is one of \['max_pool', .*\], not 'pool'"):
        ExtraLevels(SPEC, 5, 1, "pool")  # type: ignore[arg-type]


def test_steps_between_levels() -> None:
    spec: Spec = {"c3": Level(1, 4), "c4": Level(1, 16), "c5": Level(1, 16), "c6": Level(1, 32)}
    assert level_steps(spec) == {"c4": 4, "c5": 1, "c6": 2}
    assert level_steps({"c5": Level(1, 32)}) == {}
    with pytest.raises(ValueError, match="stride 12 of c4 is no multiple of 8, the level before"):
        level_steps({"c3": Level(1, 8), "c4": Level(1, 12)})


def test_the_steps_are_the_whole() -> None:
    torch.manual_seed(0)
    pyramid = FeaturePyramid(SPEC, 5)
    features = {"c4": torch.randn(2, 6, 7, 5), "c5": torch.randn(2, 8, 4, 3)}
    laterals = pyramid.laterals(features)
    before = {name: x.clone() for name, x in laterals.items()}
    sums = pyramid.top_down(laterals)
    rows, columns = torch.tensor([0, 0, 1, 1, 2, 2, 3]), torch.tensor([0, 0, 1, 1, 2])
    torch.testing.assert_close(sums["c5"], laterals["c5"], rtol=0, atol=0)
    torch.testing.assert_close(sums["c4"], laterals["c4"] + laterals["c5"][:, :, rows][:, :, :, columns])
    whole = pyramid(features)
    for name, level in pyramid.smooth_levels(sums).items():
        torch.testing.assert_close(level, whole[name], rtol=0, atol=0)
        torch.testing.assert_close(laterals[name], before[name], rtol=0, atol=0)


def test_initial_weights_have_variance_one_over_fan_in_and_no_bias() -> None:
    torch.manual_seed(0)
    neck = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Conv2d(200, 300, 1))
    reset_convolutions(neck)
    for conv in neck:
        fan_in = conv.weight[0].numel()
        assert conv.weight.var().item() * fan_in == pytest.approx(1, abs=0.02)
        assert conv.weight.abs().max().item() <= (3 / fan_in) ** 0.5
        assert not conv.bias.any()
