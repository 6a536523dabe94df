"""RT-DETR's hybrid encoder."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.positions import sine_grid
from boxwright.layers.rep_vgg import fuse_for_inference
from boxwright.necks.hybrid_encoder import HybridEncoder
from boxwright.structures import Features, Level, Spec

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)}


def small(**options: float) -> HybridEncoder:
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
    tokens = neck.layers[0](c5.flatten(2).mT, sine_grid(3, 2, 16))
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


def test_attention_does_not_look_at_padding() -> None:
    # Without RepVGG blocks, convolutions see one cell around them, and padding begins far from the first column.
    neck = small(num_blocks=0)
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


@pytest.mark.parametrize(("height", "width"), [(100, 75), (33, 31)])
def test_sizes_that_are_no_multiples_of_32(height: int, width: int) -> None:
    features = maps(height, width)
    for name, x in small()(features).items():
        assert x.shape[-2:] == features[name].shape[-2:]
        assert x.isfinite().all()


def test_fused_for_inference_it_computes_the_same() -> None:
    neck, features = small(expansion=0.5, num_blocks=3), maps(64, 96, batch=2)
    neck.train()
    for _ in range(3):
        neck(features)
    neck.eval()
    before = neck(features)
    fuse_for_inference(neck)
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
