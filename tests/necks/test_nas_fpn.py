"""NAS-FPN: the node table written out, any sizes and levels, published counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.folding import fold_norms
from boxwright.necks.nas_fpn import NASFPN
from boxwright.structures import Features, Level, Spec
from random_weights import calibrate, shake

SPEC: Spec = {"c3": Level(12, 8), "c4": Level(20, 16), "c5": Level(28, 32)}
FIVE: Spec = {f"p{i}": Level(6, 2**i) for i in range(3, 8)}
WIRINGS = ("tf", "mmdet")


def maps(spec: Spec, height: int = 128, width: int = 96, batch: int = 2) -> Features:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(batch, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def calibrated(spec: Spec, **options: Any) -> NASFPN:
    """Weights and statistics far from special, in float64."""
    torch.manual_seed(0)
    neck = NASFPN(spec, **options)
    shake(neck)
    calibrate(neck, maps(spec, 256, 256))
    return neck.double().eval()


def level_of(node: int) -> int:
    """3 for P3 to 7 for P7; nodes 0 to 4 come in, the others are the table's."""
    return {0: 3, 1: 4, 2: 5, 3: 6, 4: 7, 5: 4, 6: 4, 7: 3, 8: 4, 9: 5, 10: 7, 11: 6}[node]


def cell_by_cell(x: Tensor, level: int, target: int, size: tuple[int, int]) -> Tensor:
    """Nearest up, largest down, every cell of the target by itself."""
    out = x.new_empty(*x.shape[:2], *size)
    for i in range(size[0]):
        for j in range(size[1]):
            if target <= level:
                step = 2 ** (level - target)
                out[:, :, i, j] = x[:, :, i // step, j // step]
            else:
                step = 2 ** (target - level)
                window = x[:, :, i * step : (i + 1) * step, j * step : (j + 1) * step]
                out[:, :, i, j] = window.flatten(2).max(2).values
    return out


def table(neck: NASFPN, features: Features) -> list[Tensor]:
    """The node table, node by node, for the ``tf`` wiring and five levels of the neck's width."""
    levels = list(features.values())
    for cell in neck.cells:
        nodes = dict(enumerate(levels))
        sizes = {3 + i: (x.shape[-2], x.shape[-1]) for i, x in enumerate(levels)}

        def at(
            node: int, level: int, nodes: dict[int, Tensor] = nodes, sizes: dict[int, tuple[int, int]] = sizes
        ) -> Tensor:
            return cell_by_cell(nodes[node], level_of(node), level, sizes[level])

        def attention(coarse: Tensor, fine: Tensor) -> Tensor:
            most = coarse.flatten(2).max(2).values[:, :, None, None]
            return coarse + fine / (1 + torch.exp(-most))

        def finished(node: int, x: Tensor, cell: Any = cell) -> Tensor:
            conv, norm = cell.nodes[node - 5].conv, cell.nodes[node - 5].norm
            x = F.conv2d(x.clamp(min=0), conv.weight, conv.bias, padding=1)
            x = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-3) ** 0.5
            return x * norm.weight[:, None, None] + norm.bias[:, None, None]

        nodes[5] = finished(5, attention(at(3, 4), at(1, 4)))
        nodes[6] = finished(6, at(1, 4) + at(5, 4))
        nodes[7] = finished(7, at(0, 3) + at(6, 3))
        nodes[8] = finished(8, at(6, 4) + at(7, 4))
        nodes[9] = finished(9, attention(at(8, 5), at(7, 5)) + nodes[2])
        nodes[10] = finished(10, attention(at(9, 7), at(6, 7)) + nodes[4])
        nodes[11] = finished(11, attention(at(10, 6), at(9, 6)))
        levels = [nodes[i] for i in (7, 8, 9, 11, 10)]
    return levels


@pytest.mark.parametrize(("height", "width"), [(128, 128), (200, 75), (24, 8)])
def test_node_table(height: int, width: int) -> None:
    neck = calibrated(FIVE, out_channels=6, repeats=2)
    features = {name: x.double().requires_grad_() for name, x in maps(FIVE, height, width).items()}
    inputs = [*features.values(), *neck.parameters()]
    results = []
    for levels in (list(neck(features).values()), table(neck, features)):
        # Squared, so that every cell has a gradient of its own.
        results.append((levels, torch.autograd.grad(sum((x**2).sum() for x in levels), inputs)))
    (actual, gradients), (expected, expected_gradients) = results
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_what_no_node_has_used_is_added_on_p5_and_p7() -> None:
    """A change of one level that comes in moves the sum before a node's ReLU as the table says."""
    neck = calibrated(FIVE, out_channels=6, repeats=1)
    features = {name: x.double() for name, x in maps(FIVE, 128, 128).items()}
    sums: list[Tensor] = []
    for node in neck.cells[0].nodes:
        node.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0]))
    neck(features)
    before = sums.copy()
    moved = {
        "p3": [7, 8, 9, 10, 11],
        "p4": [5, 6, 7, 8, 9, 10, 11],
        "p5": [9, 10, 11],
        "p6": [5, 6, 7, 8, 9, 10, 11],
        "p7": [10, 11],
    }
    for name, nodes in moved.items():
        sums.clear()
        neck({**features, name: features[name] + 1})
        differing = [i for i, (one, two) in enumerate(zip(before, sums, strict=True), 5) if (one != two).any()]
        assert differing == nodes, name


@pytest.mark.parametrize(
    ("wiring", "repeats", "expected"),
    [("mmdet", 7, 29_977_600), ("mmdet", 6, 29_977_600 - 4_132_352), ("tf", 7, 29_858_816), ("tf", 5, 21_590_528)],
)
def test_published_parameter_counts(wiring: Any, repeats: int, expected: int) -> None:
    spec = {f"c{i}": Level(channels, 2**i) for i, channels in zip((3, 4, 5), (512, 1024, 2048), strict=True)}
    with torch.device("meta"):
        neck = NASFPN(spec, repeats=repeats, wiring=wiring)
    assert sum(p.numel() for p in neck.parameters()) == expected


@pytest.mark.parametrize(
    ("options", "eps", "momentum"),
    [
        ({}, 1e-3, 0.01),
        ({"wiring": "mmdet"}, 1e-5, 0.1),
        ({"norm_momentum": 0.2}, 1e-3, 0.2),
        ({"wiring": "mmdet", "norm_momentum": 0.2}, 1e-5, 0.2),
    ],
)
def test_constants_of_the_norms(options: dict[str, Any], eps: float, momentum: float) -> None:
    norms = [m for m in NASFPN(SPEC, out_channels=4, repeats=1, **options).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 + 7 + (2 if "wiring" in options else 0)
    assert {(norm.eps, norm.momentum) for norm in norms} == {(eps, momentum)}


def test_levels_of_the_necks_width() -> None:
    """They have no convolution in TensorFlow's models, and one in mmdetection."""
    spec = {"c3": Level(8, 8), "c4": Level(4, 16), "c5": Level(8, 32)}
    for wiring, with_convolution in (("tf", ["c4"]), ("mmdet", ["c3", "c4", "c5"])):
        lateral = NASFPN(spec, out_channels=8, repeats=1, wiring=wiring).lateral  # type: ignore[arg-type]
        assert [name for name, layer in lateral.items() if not isinstance(layer, nn.Identity)] == with_convolution


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"c5": Level(5, 32)}, {"c5": 32, "c6": 64, "c7": 128, "c8": 256, "c9": 512}),
        ({"patch": Level(8, 14)}, {"patch": 14, "patch1": 28, "patch2": 56, "patch3": 112, "patch4": 224}),
        (
            {"c3": Level(4, 8), "c4": Level(6, 16), "c5": Level(5, 16)},
            {"c3": 8, "c4": 16, "c5": 16, "c6": 32, "c7": 64},
        ),
        ({"c2": Level(6, 4), "c4": Level(5, 16)}, {"c2": 4, "c4": 16, "c5": 32, "c6": 64, "c7": 128}),
        (FIVE, {f"p{i}": 2**i for i in range(3, 8)}),
    ],
    ids=["one", "a patch of 14", "equal strides", "a stride of 4", "five"],
)
def test_any_levels(spec: Spec, expected: dict[str, int], wiring: Any) -> None:
    neck = NASFPN(spec, out_channels=8, repeats=2, wiring=wiring)
    assert neck.out_spec == {name: Level(8, stride) for name, stride in expected.items()}
    for height, width in ((128, 96), (101, 75), (9, 70)):
        out = neck(maps(spec, height, width))
        assert list(out) == list(expected)
        for name, stride in expected.items():
            assert out[name].shape == (2, 8, -(-height // stride), -(-width // stride))


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("levels", [1, 3])
def test_every_parameter_learns(levels: int, wiring: Any) -> None:
    torch.manual_seed(0)
    spec = dict(list(SPEC.items())[-levels:])
    neck = NASFPN(spec, out_channels=8, repeats=2, wiring=wiring)
    # At the coarsest of five levels there is more than one cell.
    out = neck(maps(spec, 1024, 768))
    sum((x * torch.randn_like(x)).sum() for x in out.values()).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None, name
        # A norm takes away the bias before it, and then its gradient is rounding.
        assert name.endswith("conv.bias") or (parameter.grad.abs() > 1e-6).any(), name


@pytest.mark.parametrize("wiring", WIRINGS)
def test_folding_the_norms_changes_nothing(wiring: Any) -> None:
    neck = calibrated(SPEC, out_channels=8, repeats=2, wiring=wiring).float()
    before = neck(maps(SPEC))
    fold_norms(neck)
    fold_norms(neck)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in neck.modules())
    for name, level in neck(maps(SPEC)).items():
        torch.testing.assert_close(level, before[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_exports_with_a_free_batch(wiring: Any) -> None:
    torch.manual_seed(0)
    neck = NASFPN(SPEC, out_channels=4, repeats=1, wiring=wiring).eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(neck, (maps(SPEC, 100, 75),), dynamic_shapes=({name: {0: batch} for name in SPEC},))
    features = maps(SPEC, 100, 75, batch=3)
    expected = neck(features)
    for name, level in program.module()(features).items():
        torch.testing.assert_close(level, expected[name], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_channels": 0}, "out_channels is at least 1, not 0"),
        ({"repeats": 0}, "repeats is at least 1, not 0"),
        ({"wiring": "paper"}, r"wiring is one of \['tf', 'mmdet'\], not 'paper'"),
        ({"norm_momentum": 0.0}, r"norm_momentum is in \(0, 1\], not 0.0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NASFPN(SPEC, **options)


def test_more_than_five_levels() -> None:
    spec = {f"c{i}": Level(4, 2**i) for i in range(2, 8)}
    with pytest.raises(
        ValueError, match=r"nas_fpn merges five levels at most, not the 6 that come in: \['c2', .*'c7'\]"
    ):
        NASFPN(spec)


def test_strides_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="stride 12 of c4 is no multiple of 8, the level before"):
        NASFPN({"c3": Level(4, 8), "c4": Level(4, 12)}, out_channels=4)
