"""RT-DETR's hybrid encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import boxwright
from boxwright.layers.conv import ConvNorm
from boxwright.layers.folding import fold_norms
from boxwright.layers.positions import encode_sine_grid
from boxwright.layers.tokens import to_map, to_tokens
from boxwright.layers.transformer import FeedForward
from boxwright.necks.hybrid_encoder import HybridEncoder
from boxwright.structures import Features, Level, Spec

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)}

attending = pytest.mark.parametrize("variant", ["B", "C", "D", "D_S5", "E"])


def small(**options: float | str) -> HybridEncoder:
    torch.manual_seed(0)
    defaults = {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 32, "num_blocks": 1}
    return HybridEncoder(SPEC, **(defaults | options)).eval()  # type: ignore[arg-type]


def maps(height: int, width: int, batch: int = 1, seed: int = 1) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(
            batch, level.channels, -(-height // level.stride), -(-width // level.stride), generator=generator
        )
        for name, level in SPEC.items()
    }


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts_part_by_part() -> None:
    with torch.device("meta"):
        neck = HybridEncoder({"c3": Level(512, 8), "c4": Level(1024, 16), "c5": Level(2048, 32)})
    assert {name: num_parameters(child) for name, child in neck.named_children()} == {
        "projections": 919_040,
        "layers": 789_760,
        "laterals": 132_096,
        "down_blocks": 4_464_640,
        "downsamples": 1_180_672,
        "up_blocks": 4_464_640,
    }


def test_is_the_paths_written_out() -> None:
    neck, features = small(), maps(96, 64)
    c3, c4, c5 = (neck.projections[name](features[name]) for name in SPEC)
    tokens = neck.layers[0](c5.flatten(2).mT, encode_sine_grid(3, 2, 16))
    c5 = tokens.mT.reshape(1, 16, 3, 2)

    def twice(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    high5 = neck.laterals[0](c5)
    mid4 = neck.down_blocks[0](torch.cat((twice(high5), c4), 1))
    high4 = neck.laterals[1](mid4)
    out3 = neck.down_blocks[1](torch.cat((twice(high4), c3), 1))
    out4 = neck.up_blocks[0](torch.cat((neck.downsamples[0](out3), high4), 1))
    out5 = neck.up_blocks[1](torch.cat((neck.downsamples[1](out4), high5), 1))
    for ours, expected in zip(neck(features).values(), (out3, out4, out5), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_without_attention_layers_the_coarsest_level_passes() -> None:
    neck, features = small(num_layers=0), maps(64, 64)
    seen: list[Tensor] = []
    neck.laterals[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    neck(features)
    torch.testing.assert_close(seen[0], neck.projections["c5"](features["c5"]), rtol=0, atol=0)


@attending
def test_attention_does_not_look_at_padding(variant: str) -> None:
    # Without RepVGG blocks, convolutions see one cell around them, and padding begins far from the first column.
    neck = small(num_blocks=0, variant=variant)
    mask = torch.zeros(1, 64, 512, dtype=torch.bool)
    mask[:, :, 256:] = True
    features = maps(64, 512)
    others = {name: x.clone() for name, x in features.items()}
    for x in others.values():
        x[..., x.shape[-1] // 2 :] += 5
    before, after = neck(features, mask), neck(others, mask)
    seeing = neck(features), neck(others)
    for name in SPEC:
        torch.testing.assert_close(after[name][..., :2], before[name][..., :2], rtol=0, atol=1e-5)
        assert (seeing[1][name][..., :2] - seeing[0][name][..., :2]).abs().max() > 1e-3


@attending
@pytest.mark.parametrize(("height", "width"), [(100, 75), (33, 31)])
def test_sizes_that_are_no_multiples_of_32(height: int, width: int, variant: str) -> None:
    features = maps(height, width)
    for name, x in small(variant=variant)(features).items():
        assert x.shape[-2:] == features[name].shape[-2:]
        assert x.isfinite().all()


def test_fused_for_inference_it_computes_the_same() -> None:
    neck, features = small(expansion=0.5, num_blocks=3), maps(64, 96, batch=2)
    neck.train()
    for _ in range(3):
        neck(features)
    neck.eval()
    before = neck(features)
    fold_norms(neck)
    for name, x in neck(features).items():
        assert (x - before[name]).abs().max() < 1e-4


def test_feed_forward_is_gelu_and_paths_are_silu() -> None:
    neck = small()
    assert isinstance(neck.layers[0].feed_forward.activation, nn.GELU)
    assert {type(c.activation) for c in (*neck.laterals, *neck.downsamples)} == {nn.SiLU}
    assert {type(c.activation) for c in neck.projections.values()} == {nn.Identity}
    x = torch.randn(3)
    torch.testing.assert_close(neck.layers[0].feed_forward.activation(x), F.gelu(x))


@pytest.mark.parametrize(
    ("variant", "published", "exact"),
    [
        ("A", 31, 31_714_668),
        ("B", 32, 32_702_572),
        ("C", 32, 32_702_572),
        ("D", 35, 35_654_252),
        ("D_S5", 35, 35_654_252),
        ("E", 42, 42_944_620),
    ],
)
def test_published_parameter_counts_of_the_study(variant: str, published: int, exact: int) -> None:
    with torch.device("meta"):
        detector = boxwright.build("rtdetr_r50", num_classes=80, overrides={"neck.variant": variant})
    # The authors count scale and shift of frozen norms, which are buffers here; and they round down.
    count = num_parameters(detector) + 53_248
    assert (count // 1_000_000, count) == (published, exact)


def test_variant_a_hands_the_levels_on() -> None:
    neck, features = small(variant="A"), maps(64, 64)
    assert neck.out_spec == SPEC
    assert num_parameters(neck) == 0
    for name, x in neck(features).items():
        torch.testing.assert_close(x, features[name], rtol=0, atol=0)


def attended(neck: HybridEncoder, level: Tensor) -> Tensor:
    h, w = level.shape[-2:]
    return to_map(neck.layers[0](to_tokens(level), encode_sine_grid(h, w, 16)), h, w)


def test_variants_b_and_d_share_one_layer_among_the_levels() -> None:
    features = maps(96, 64)
    b, d = small(variant="B"), small(variant="D")
    assert len(b.layers) == len(d.layers) == 1
    levels = [attended(b, b.projections[name](features[name])) for name in SPEC]
    for ours, expected in zip(b(features).values(), levels, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    inner = [attended(d, d.projections[name](features[name])) for name in SPEC]
    for ours, expected in zip(d(features).values(), d.paths(inner), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_variant_c_attends_across_all_levels_at_once() -> None:
    neck, features = small(variant="C"), maps(96, 64)
    tokens = torch.cat([to_tokens(neck.projections[name](features[name])) for name in SPEC], 1)
    positions = torch.cat([encode_sine_grid(h, w, 16) for h, w in ((12, 8), (6, 4), (3, 2))])
    expected = neck.layers[0](tokens, positions)
    out = torch.cat([to_tokens(x) for x in neck(features).values()], 1)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reached"),
    [
        # A change in the first cell of c3: seen in the last cells of c3, in the first of c5, in the last of c5?
        ({"variant": "A"}, (False, False, False)),
        ({"variant": "B"}, (True, False, False)),
        ({"variant": "C"}, (True, True, True)),
        ({"variant": "D"}, (True, True, True)),
        ({"variant": "D", "num_layers": 0}, (False, True, False)),
        ({"variant": "D_S5"}, (False, True, False)),
        ({"variant": "E"}, (False, True, False)),
    ],
)
def test_how_far_a_change_of_a_fine_cell_reaches(options: dict[str, float | str], reached: tuple[bool, ...]) -> None:
    neck, features = small(**options), maps(64, 640)
    changed = dict(features, c3=features["c3"].clone())
    changed["c3"][..., 0, 0] += 3
    before, after = neck(features), neck(changed)
    moved = {name: (after[name] - before[name]).abs().amax(1)[0] for name in SPEC}
    assert moved["c3"][0, 0] > 1e-3
    ends = moved["c3"][-1, -1], moved["c5"][0, 0], moved["c5"][-1, -1]
    assert tuple(bool(x > 1e-6) for x in ends) == reached


@pytest.mark.parametrize("variant", ["D", "D_S5", "E"])
def test_of_those_that_fuse_only_d_attends_on_fine_levels(variant: str) -> None:
    neck, features = small(variant=variant), maps(64, 64)
    seen: list[int] = []
    neck.layers[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    neck(features)
    assert seen == ([64, 16, 4] if variant == "D" else [4])


@attending
def test_every_parameter_of_every_variant_is_trained(variant: str) -> None:
    # One image: gradients of its tokens have strides that batch norm is known to misread.
    neck = small(variant=variant).train()
    reference = small(variant=variant).train().double()
    sides = []
    for side, dtype in ((neck, torch.float32), (reference, torch.float64)):
        features = {name: x.to(dtype).requires_grad_() for name, x in maps(128, 96).items()}
        out = side(features)
        sum((x * torch.linspace(-1, 1, x.numel(), dtype=dtype).view_as(x)).sum() for x in out.values()).backward()
        tensors = [*side.parameters(), *features.values()]
        sides.append([x.grad for x in tensors])
    for ours, expected in zip(*sides, strict=True):
        assert expected.abs().max() > 0
        assert (ours - expected).norm() <= 1e-4 * expected.norm() + 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dim": 18}, r"hidden_dim is a multiple of 4 and of num_heads \(2\), not 18"),
        ({"hidden_dim": 16, "num_heads": 3}, r"num_heads \(3\), not 16"),
        ({"num_heads": 0}, "num_heads is at least 1, not 0"),
        ({"expansion": 0.01}, "expansion leaves at least one of 16 channels, and 0.01 does not"),
    ],
)
def test_what_the_constructor_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


DEIMV2 = {"feedforward_dim": 512, "expansion": 0.34, "num_blocks": 2}


@pytest.mark.parametrize(
    ("spec", "options", "count"),
    [
        ({"c4": Level(512, 16), "c5": Level(1024, 32)}, {"hidden_dim": 128, "fusion": "elan_sum"}, 638_288),
        (
            {name: Level(192, 8 << i) for i, name in enumerate(SPEC)},
            {"hidden_dim": 192, "fusion": "elan_slim"},
            1_367_360,
        ),
    ],
)
def test_published_parameter_counts_of_deimv2(spec: Spec, options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        neck = HybridEncoder(spec, **DEIMV2, **options)
    assert num_parameters(neck) == count


def test_sums_take_levels_of_the_width_as_they_are() -> None:
    spec = {"c4": Level(16, 16), "c5": Level(10, 32)}
    summed = HybridEncoder(spec, hidden_dim=16, num_heads=2, num_blocks=1, fusion="elan_sum")
    assert [type(projection) for projection in summed.projections.values()] == [nn.Identity, ConvNorm]
    joined = HybridEncoder(spec, hidden_dim=16, num_heads=2, num_blocks=1, fusion="elan")
    assert [type(projection) for projection in joined.projections.values()] == [ConvNorm, ConvNorm]


def test_the_activation_is_that_of_the_attention_layers() -> None:
    neck, features = small(activation="silu"), maps(64, 64)
    other = small()
    other.load_state_dict(neck.state_dict())
    assert (neck(features)["c5"] - other(features)["c5"]).abs().max() > 1e-4
    feed_forward = neck.layers[0].feed_forward
    assert isinstance(feed_forward, FeedForward)
    assert isinstance(feed_forward.activation, nn.SiLU)
