"""Deformable DETR's encoder layer, projections of levels and encodings of boxes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.deformable_attention import MultiScaleDeformableAttention
from boxwright.layers.deformable_transformer import (
    DeformableEncoderLayer,
    encode_box_sine,
    level_projection,
    reset_transformer,
)
from boxwright.layers.tokens import compute_cell_centers, flatten_levels

SHAPES = [(4, 6), (2, 3)]


def maps(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 16, h, w, generator=generator) for h, w in SHAPES]


def padding_mask() -> Tensor:
    """Mask the padding of images of 32 x 48 and 24 x 16 pixels in one batch."""
    mask = torch.zeros(2, 32, 48, dtype=torch.bool)
    mask[1, 24:], mask[1, :, 16:] = True, True
    return mask


def stirred(module: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def test_encoding_of_boxes_is_the_formula() -> None:
    box = [0.1, 0.9, 0.5, 0.02]
    encoded = encode_box_sine(torch.tensor([[box]]), 8)[0, 0]
    expected = []
    for value in box:
        for i in range(4):
            angle = 2 * math.pi * value / 10000 ** (i / 4)
            expected += [math.sin(angle), math.cos(angle)]
    torch.testing.assert_close(encoded, torch.tensor(expected), rtol=0, atol=1e-6)


def test_projection_has_32_groups_where_it_can() -> None:
    groups = {width: level_projection(4, width)[1].num_groups for width in (256, 64, 24, 16)}
    assert groups == {256: 32, 64: 32, 24: 4, 16: 8}
    assert level_projection(4, 16)(torch.randn(1, 4, 1, 1)).abs().max() > 0.1


def test_projection_is_initialized_by_xavier_without_bias() -> None:
    conv = level_projection(64, 128, kernel_size=3, stride=2)[0]
    bound = math.sqrt(6 / (9 * (64 + 128)))
    assert conv.weight.abs().max() <= bound
    assert conv.weight.abs().max() > 0.99 * bound
    assert (conv.bias == 0).all()
    assert conv(torch.zeros(1, 64, 5, 8)).shape == (1, 128, 3, 4)


def test_reset_is_xavier_everywhere_but_in_deformable_attention() -> None:
    layer = DeformableEncoderLayer(16, num_heads=4, num_levels=2, hidden_dim=64)
    bias = layer.self_attention.sampling_offsets.bias.clone()
    nn.init.ones_(layer.self_attention.sampling_offsets.weight)
    nn.init.ones_(layer.feed_forward.linear1.weight)
    reset_transformer(layer)
    bound = math.sqrt(6 / (16 + 64))
    assert 0.95 * bound < layer.feed_forward.linear1.weight.abs().max() <= bound
    assert (layer.self_attention.sampling_offsets.weight == 0).all()
    torch.testing.assert_close(layer.self_attention.sampling_offsets.bias, bias, rtol=0, atol=0)


def encoder_layer(dropout: float = 0.0) -> DeformableEncoderLayer:
    layer = DeformableEncoderLayer(16, num_heads=2, num_levels=2, num_points=3, hidden_dim=24, dropout=dropout)
    stirred(layer)
    return layer


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    tokens = flatten_levels(maps(), None)
    reference = compute_cell_centers(tokens)[:, :, None].expand(2, -1, 2, -1)
    return tokens.memory, torch.randn(1, 30, 16, generator=torch.Generator().manual_seed(1)), reference


def test_layer_is_attention_and_feed_forward_each_with_a_norm_after_it() -> None:
    layer = encoder_layer()
    tokens, positions, reference = arguments()
    attention: MultiScaleDeformableAttention = layer.self_attention
    # Positions are in the query and not in what is sampled.
    x = layer.norm1(tokens + attention(tokens + positions, reference, tokens, SHAPES))
    x = layer.norm2(x + layer.feed_forward.linear2(F.relu(layer.feed_forward.linear1(x))))
    torch.testing.assert_close(layer(tokens, positions, reference, SHAPES), x, rtol=0, atol=1e-6)


def test_dropout_is_after_both_and_within_the_feed_forward() -> None:
    layer = encoder_layer(dropout=0.5).train()
    tokens, positions, reference = arguments()
    layer.dropout.p = 1.0
    silent = layer.norm2(layer.norm1(tokens))
    torch.testing.assert_close(layer(tokens, positions, reference, SHAPES), silent, rtol=0, atol=1e-6)
    layer.dropout.p, layer.feed_forward.dropout.p = 0.0, 1.0
    x = layer.norm1(tokens + layer.self_attention(tokens + positions, reference, tokens, SHAPES))
    expected = layer.norm2(x + layer.feed_forward.linear2.bias)
    torch.testing.assert_close(layer(tokens, positions, reference, SHAPES), expected, rtol=0, atol=1e-6)


def test_no_token_attends_to_padding() -> None:
    layer = encoder_layer()
    tokens, positions, reference = arguments()
    padding = flatten_levels(maps(), padding_mask()).padding
    assert padding is not None
    others = tokens + 5 * padding[..., None]
    before, after = (layer(x, positions, reference, SHAPES, padding) for x in (tokens, others))
    torch.testing.assert_close(after[~padding], before[~padding], rtol=0, atol=1e-6)
    assert (layer(others, positions, reference, SHAPES) - before)[~padding].abs().max() > 1e-2


def test_sums_that_float16_cannot_hold_stay_finite() -> None:
    layer = encoder_layer()
    with torch.no_grad():
        layer.feed_forward.linear2.bias.fill_(40_000)
        layer.norm1.bias.fill_(40_000)
        layer.feed_forward.linear1.weight.zero_()
    tokens, positions, reference = (x.half() for x in arguments())
    assert layer.half()(tokens, positions, reference, SHAPES).isfinite().all()
