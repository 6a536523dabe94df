"""BiFPN: published sizes, fusion, any levels. tests/parity compares it with effdet's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from boxwright.layers.folding import fold_norms
from boxwright.necks.bifpn import BiFPN, FusionNode
from boxwright.structures import Features, Level, Spec
from random_weights import calibrate, shake

SPEC: Spec = {"c3": Level(12, 8), "c4": Level(20, 16), "c5": Level(28, 32)}


def maps(spec: Spec, height: int = 128, width: int = 96) -> Features:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("widths", "out_channels", "repeats", "fusion", "expected"),
    [
        pytest.param((40, 112, 320), 64, 3, "fast", 196_281, id="d0"),
        pytest.param((40, 112, 320), 88, 4, "fast", 390_972, id="d1"),
        pytest.param((48, 120, 352), 112, 5, "fast", 708_159, id="d2"),
        pytest.param((48, 136, 384), 160, 6, "fast", 1_559_474, id="d3"),
        pytest.param((56, 160, 448), 224, 7, "fast", 3_349_829, id="d4"),
        pytest.param((64, 176, 512), 288, 7, "fast", 5_405_893, id="d5"),
        pytest.param((72, 200, 576), 384, 8, "sum", 10_583_808, id="d6"),
    ],
)
def test_published_parameter_counts(
    widths: tuple[int, ...], out_channels: int, repeats: int, fusion: Any, expected: int
) -> None:
    spec = {f"c{i}": Level(channels, 2**i) for i, channels in zip((3, 4, 5), widths, strict=True)}
    with torch.device("meta"):
        neck = BiFPN(spec, out_channels=out_channels, repeats=repeats, fusion=fusion)
    assert count(neck) == expected


@pytest.mark.parametrize("scalars", [19, 0], ids=["fast", "sum"])
def test_parameters_of_a_cell(scalars: int) -> None:
    width = 24
    spec = {f"p{i}": Level(width, 2**i) for i in range(3, 8)}
    cell = BiFPN(spec, out_channels=width, repeats=1, fusion="fast" if scalars else "sum")
    assert count(cell) == 8 * (width**2 + 12 * width) + scalars


def test_levels_with_two_nodes_are_resampled_twice() -> None:
    cell = BiFPN(SPEC, out_channels=16).cells[0]
    resampled = {
        (path, name, i)
        for path in ("down", "up")
        for name, node in getattr(cell, path).items()
        for i, projection in enumerate(node.projections)
        if not isinstance(projection, nn.Identity)
    }
    # And c5 once more, for c6.
    assert resampled == {("down", "c3", 0), ("down", "c4", 0), ("up", "c4", 0), ("down", "c5", 0), ("up", "c5", 0)}


@pytest.mark.parametrize("inputs", [2, 3])
@pytest.mark.parametrize("fusion", ["fast", "softmax", "sum"])
def test_fusion_of_equal_maps(fusion: Any, inputs: int) -> None:
    node = FusionNode([4] * inputs, 4, fusion, "before_conv").double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    factor = {"fast": inputs / (inputs + 1e-4), "softmax": 1.0, "sum": float(inputs)}[fusion]
    torch.testing.assert_close(node.fuse([x] * inputs), factor * x, rtol=0, atol=1e-6 * factor)
    if fusion == "fast":
        assert (node.fuse([x] * inputs) - x).abs().max() > 1e-5


def test_fusion_weights() -> None:
    def weights_of(fusion: Any) -> torch.Tensor | None:
        node = FusionNode([4, 4, 4], 4, fusion, "before_conv")
        if node.weights is not None:
            node.weights.data = torch.tensor([3.0, -2.0, 1.0])
        return node.normalize_weights()

    torch.testing.assert_close(weights_of("fast"), torch.tensor([3.0, 0.0, 1.0]) / 4.0001)
    torch.testing.assert_close(weights_of("softmax"), torch.tensor([3.0, -2.0, 1.0]).softmax(0))
    assert weights_of("sum") is None


@pytest.mark.parametrize("fusion", ["fast", "softmax"])
@pytest.mark.parametrize("levels", [1, 3])
def test_every_fusion_weight_learns(fusion: Any, levels: int) -> None:
    torch.manual_seed(0)
    spec = dict(list(SPEC.items())[-levels:])
    neck = BiFPN(spec, out_channels=8, repeats=2, num_levels=4, fusion=fusion)
    shake(neck)
    out = neck(maps(spec, 320, 256))
    sum((x * torch.randn_like(x)).sum() for x in out.values()).backward()
    weights = {name: p for name, p in neck.named_parameters() if name.endswith("weights")}
    assert len(weights) == 2 * 6
    for name, weight in weights.items():
        assert weight.grad is not None
        assert (weight.grad.abs() > 1e-6).all(), name


@pytest.mark.parametrize(
    ("spec", "num_levels", "expected"),
    [
        ({"c5": Level(5, 32)}, 2, {"c5": 32, "c6": 64}),
        ({"c5": Level(8, 32)}, 4, {"c5": 32, "c6": 64, "c7": 128, "c8": 256}),
        ({"patch": Level(5, 14)}, 3, {"patch": 14, "patch1": 28, "patch2": 56}),
        ({"c4": Level(6, 16), "c5": Level(5, 16)}, 3, {"c4": 16, "c5": 16, "c6": 32}),
        ({"c2": Level(6, 4), "c4": Level(5, 16)}, 2, {"c2": 4, "c4": 16}),
        ({f"c{i}": Level(i, 2**i) for i in range(2, 7)}, 2, {f"c{i}": 2**i for i in range(2, 7)}),
    ],
    ids=["one", "of the neck's width", "a patch of 14", "equal strides", "a stride of 4", "more than asked for"],
)
@pytest.mark.parametrize(("height", "width"), [(128, 96), (101, 75), (9, 70)])
def test_any_levels(spec: Spec, num_levels: int, expected: dict[str, int], height: int, width: int) -> None:
    neck = BiFPN(spec, out_channels=8, repeats=2, num_levels=num_levels)
    assert neck.out_spec == {name: Level(8, stride) for name, stride in expected.items()}
    out = neck(maps(spec, height, width))
    assert list(out) == list(expected)
    for name, stride in expected.items():
        assert out[name].shape == (2, 8, -(-height // stride), -(-width // stride))


def test_every_level_reaches_every_level() -> None:
    torch.manual_seed(0)
    neck = BiFPN(SPEC, out_channels=8, repeats=1).eval()
    features = {name: x.requires_grad_() for name, x in maps(SPEC, 256, 256).items()}
    for out in neck(features).values():
        gradients = torch.autograd.grad(out.sum(), list(features.values()), retain_graph=True)
        assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("activation", ["before_conv", "after_norm"])
def test_folding_the_norms_changes_nothing(activation: Any) -> None:
    torch.manual_seed(0)
    neck = BiFPN(SPEC, out_channels=8, repeats=2, activation=activation)
    shake(neck)
    calibrate(neck, maps(SPEC, 256, 256))
    features = maps(SPEC)
    before = neck.eval()(features)
    fold_norms(neck)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in neck.modules())
    after = neck(features)
    for name, level in before.items():
        torch.testing.assert_close(after[name], level, rtol=0, atol=1e-4)


def test_exports_with_a_free_batch() -> None:
    torch.manual_seed(0)
    neck = BiFPN(SPEC, out_channels=4, repeats=1).eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(neck, (maps(SPEC, 100, 75),), dynamic_shapes=({name: {0: batch} for name in SPEC},))
    features = {name: torch.cat((x, x[:1])) for name, x in maps(SPEC, 100, 75).items()}
    expected = neck(features)
    for name, level in program.module()(features).items():
        torch.testing.assert_close(level, expected[name], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_channels": 0}, "out_channels is at least 1, not 0"),
        ({"repeats": 0}, "repeats is at least 1, not 0"),
        ({"num_levels": 1}, "num_levels is at least 2, not 1"),
        ({"fusion": "attn"}, r"fusion is one of \['fast', 'softmax', 'sum'\], not 'attn'"),
        ({"activation": "none"}, r"activation is one of \['before_conv', 'after_norm'\], not 'none'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BiFPN(SPEC, **options)


def test_strides_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="stride 12 of c4 is no multiple of 8, the level before"):
        BiFPN({"c3": Level(4, 8), "c4": Level(4, 12)})
