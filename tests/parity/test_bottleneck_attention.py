"""Attention in backbones beside timm's, live, and beside two other projects' numbers, made once (see README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from timm.layers import SEModule
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from boxwright.backbones.botnet import BoTNet
from boxwright.layers.block_options import BlockOptions
from boxwright.layers.non_local_block import NonLocalBlock
from boxwright.layers.position_attention import PositionAttention, PositionTables
from conformance import compare, compare_gradients, compare_tensors, note_inputs

STACKS: dict[str, dict[str, Any]] = {
    "relative/stride_2/training": {"c5_stride": 2, "positions": "relative"},
    "relative/stride_1/evaluation": {"c5_stride": 1, "positions": "relative"},
    "absolute/stride_2/evaluation": {"c5_stride": 2, "positions": "absolute"},
}
ATTENTIONS = ["relative", "absolute"]
BLOCKS = {"all_cells": False, "subsampled": True}


def stack(variant: str) -> tuple[nn.Module, Tensor]:
    """c5 of a small BoTNet with the authors' ReLU on the shortcut, and a map of 6 x 6 cells for it."""
    botnet = BoTNet(width=2, image_size=96, block=BlockOptions(shortcut_activation="attention"), **STACKS[variant])
    set_weights(botnet)
    return botnet.layer4.train(variant.endswith("training")), uniform("map", 2, 32, 6, 6) + 0.5


def attention(positions: Any) -> tuple[nn.Module, Tensor]:
    """With a map that is not square."""
    layer = PositionAttention(12, (5, 4), num_heads=2, positions=positions)
    set_weights(layer)
    return layer, uniform("map", 2, 12, 5, 4)


def block(variant: str) -> tuple[nn.Module, Tensor]:
    """A non-local block of even sizes."""
    layer = NonLocalBlock(8, subsample=BLOCKS[variant])
    set_weights(layer)
    return layer, uniform("map", 2, 8, 6, 4)


@pytest.mark.conforms("BoTNet's attention", "timm")
@pytest.mark.parametrize(
    ("size", "heads", "stride"),
    # The pooling of theirs leaves an odd edge out.
    [((6, 6), 4, 1), ((5, 7), 2, 1), ((1, 4), 4, 1), ((6, 4), 4, 2)],
)
def test_timm(size: tuple[int, int], heads: int, stride: int) -> None:
    theirs = BottleneckAttn(16, feat_size=size, num_heads=heads, stride=stride, scale_pos_embed=True).double()
    ours = PositionAttention(16, size, num_heads=heads, stride=stride).double()
    assert ours.relative is not None
    pairs = [
        (ours.project.weight, theirs.qkv.weight),
        (ours.relative.height, theirs.pos_embed.height_rel),
        (ours.relative.width, theirs.pos_embed.width_rel),
    ]
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other.normal_(0, 0.3))
    x = uniform("map", 2, 16, *size).requires_grad_()
    note_inputs(x)
    y, expected = ours(x), theirs(x)
    compare_tensors("outputs", y, expected, limit=1e-10)
    direction = uniform("direction", *y.shape)
    one = torch.autograd.grad((y * direction).sum(), [x, *(mine for mine, _ in pairs)])
    two = torch.autograd.grad((expected * direction).sum(), [x, *(other for _, other in pairs)])
    compare_gradients(
        *({str(i): x for i, x in enumerate(grads)} for grads in (one, two)),
        limit=1e-9,
        floor=1e-6,
        elements=(1e-9, 1e-9),
    )

    # Its default does not scale the position's part: tables that are sqrt(d) times as large.
    theirs.scale_pos_embed = False
    with torch.no_grad():
        for table in theirs.pos_embed.parameters():
            table.mul_(ours.head_dim**-0.5)
    torch.testing.assert_close(theirs(x), expected, rtol=1e-10, atol=1e-10)


WIDTH = 4
THEIR_NAMES = {
    "conv2.project.weight": "conv2.qkv.weight",
    "conv2.relative.height": "conv2.pos_embed.height_rel",
    "conv2.relative.width": "conv2.pos_embed.width_rel",
}


def build_their_block(channels: int, size: tuple[int, int]) -> Bottleneck:
    """timm's block with timm's attention in place of the convolution."""
    wide, inner = 32 * WIDTH, 8 * WIDTH
    shortcut = (
        nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)) if channels < wide else None
    )
    block = Bottleneck(channels, inner, downsample=shortcut, act_layer=nn.SiLU, attn_layer="se")
    block.conv2 = BottleneckAttn(inner, feat_size=size, num_heads=4, scale_pos_embed=True)
    assert block.se is not None
    # timm's layer takes a ReLU, whatever the network has, and rounds its width up.
    block.se = SEModule(wide, rd_ratio=1 / 16, rd_divisor=1, act_layer=nn.SiLU)
    return block


@pytest.mark.conforms("BoTNet's attention", "timm")
@pytest.mark.parametrize("training", [True, False])
def test_a_stage_of_stride_1_is_made_of_timms_blocks(training: bool) -> None:
    """c5 of BoTNet-T on a map of odd sizes, without the activation on the shortcut, which timm does not have."""
    size, options = (5, 7), BlockOptions(activation="silu", squeeze_excitation="all")
    ours = BoTNet(depth=(1, 1, 1, 3), width=WIDTH, c5_stride=1, block=options).layer4
    for block in ours:
        block.conv2.relative = PositionTables(size, block.conv2.head_dim, relative=True)
    theirs = nn.Sequential(*(build_their_block(channels, size) for channels in (16 * WIDTH, 32 * WIDTH, 32 * WIDTH)))
    set_weights(ours.train(training))
    names = {name: name for name in ours.state_dict()}
    for number in range(3):
        names |= {f"{number}.{mine}": f"{number}.{other}" for mine, other in THEIR_NAMES.items()}
    theirs.double().train(training).load_state_dict({names[name]: tensor for name, tensor in ours.state_dict().items()})
    x = uniform("map", 3, 16 * WIDTH, *size).requires_grad_()
    y, expected = ours(x), theirs(x)
    assert y.shape == (3, 32 * WIDTH, *size)
    note_inputs(x)
    compare_tensors("outputs", y, expected, limit=1e-10, relative=1e-10)
    direction, parameters = uniform("direction", *y.shape), dict(theirs.named_parameters())
    one = torch.autograd.grad((y * direction).sum(), [x, *ours.parameters()])
    pairs = [parameters[names[name]] for name, _ in ours.named_parameters()]
    two = torch.autograd.grad((expected * direction).sum(), [x, *pairs])
    compare_gradients(*({str(i): x for i, x in enumerate(grads)} for grads in (one, two)), limit=1e-8, floor=1e-9)


def recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / f"{name}.npz") as numbers:
        return dict(numbers)


@pytest.mark.conforms("BoTNet's attention", "bottleneck_transformer")
@pytest.mark.parametrize("variant", STACKS)
def test_the_blocks_of_bottleneck_transformer_pytorch(variant: str) -> None:
    check(*stack(variant), f"stack/{variant}", recorded("bottleneck_transformer"))


@pytest.mark.conforms("BoTNet's attention", "bottleneck_transformer")
@pytest.mark.parametrize("positions", ATTENTIONS)
def test_the_attention_of_bottleneck_transformer_pytorch(positions: str) -> None:
    check(*attention(positions), f"attention/{positions}", recorded("bottleneck_transformer"))


@pytest.mark.conforms("Non-Local block", "mmcv")
@pytest.mark.parametrize("variant", BLOCKS)
def test_the_non_local_block_of_mmcv(variant: str) -> None:
    check(*block(variant), variant, recorded("non_local_mmcv"))


def check(ours: nn.Module, x: Tensor, variant: str, theirs: dict[str, np.ndarray]) -> None:
    """Outputs; of a projection of them, norm and projection of the gradients of the map and of every parameter."""
    x.requires_grad_()
    y = ours(x)
    (y * uniform("direction", *y.shape)).sum().backward()
    # Stored in float32.
    note_inputs(x)
    compare_tensors("outputs", y[:, ::3], theirs[f"{variant}/out"], limit=1e-6, relative=1e-6)
    named = [("map", x), *ours.named_parameters()]
    actual = {name: tensor.grad for name, tensor in named if tensor.grad is not None}
    ours_of, theirs_of = summaries(actual), theirs[f"{variant}/gradients"]
    np.testing.assert_allclose(ours_of, theirs_of, rtol=1e-9, atol=1e-9)
    # Norms and projections, those that are zero but for rounding relative to the largest norm.
    floors = np.maximum(theirs_of[:, :1], theirs_of[:, 0].max() * 1e-3)
    compare("gradients", float((np.abs(ours_of - theirs_of) / floors).max()), 1e-9)


def summaries(gradients: dict[str, Tensor]) -> np.ndarray:
    """Norm and projection of each, in the order of the names."""
    return np.array(
        [
            (gradient.norm().item(), (gradient * uniform(f"direction of {name}", *gradient.shape)).sum().item())
            for name, gradient in sorted(gradients.items())
        ]
    )
