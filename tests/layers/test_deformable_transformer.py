"""Tokens of several levels, their places, and the encoder's layer."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.deformable_attention import MultiScaleDeformableAttention
from boxwright.layers.deformable_transformer import (
    DeformableEncoderLayer,
    compute_cell_centers,
    encode_box_sine,
    flatten_levels,
    level_projection,
    reset_transformer,
)

SHAPES = [(4, 6), (2, 3)]


def maps(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 16, h, w, generator=generator) for h, w in SHAPES]


def padding_mask() -> Tensor:
    """Of images of 32 x 48 and 24 x 16 pixels on one canvas."""
    mask = torch.zeros(2, 32, 48, dtype=torch.bool)
    mask[1, 24:], mask[1, :, 16:] = True, True
    return mask


def stirred(module: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def test_tokens_run_row_by_row_from_the_finest_level() -> None:
    levels = maps()
    tokens = flatten_levels(levels, None)
    assert tokens.shapes == SHAPES
    assert tokens.padding is None
    torch.testing.assert_close(tokens.memory[1, 2 * 6 + 5], levels[0][1, :, 2, 5], rtol=0, atol=0)
    torch.testing.assert_close(tokens.memory[0, 24 + 1 * 3 + 2], levels[1][0, :, 1, 2], rtol=0, atol=0)
    assert tokens.content.tolist() == [[[6, 4], [3, 2]]]
    assert tokens.valid_ratios.tolist() == [[[1, 1], [1, 1]]]


def test_content_is_counted_in_cells_of_each_level() -> None:
    tokens = flatten_levels(maps(), padding_mask())
    assert tokens.content.tolist() == [[[6, 4], [3, 2]], [[2, 3], [1, 2]]]
    torch.testing.assert_close(tokens.valid_ratios[1], torch.tensor([[2 / 6, 3 / 4], [1 / 3, 2 / 2]]))
    assert tokens.padding is not None
    assert not tokens.padding[0].any()
    expected = [row > 2 or column > 1 for row in range(4) for column in range(6)]
    expected += [column > 0 for _ in range(2) for column in range(3)]
    assert tokens.padding[1].tolist() == expected


def test_centers_are_relative_to_the_content() -> None:
    centers = compute_cell_centers(flatten_levels(maps(), padding_mask()))
    for image, content in enumerate(([(6, 4), (3, 2)], [(2, 3), (1, 2)])):
        expected = [
            ((column + 0.5) / columns, (row + 0.5) / rows)
            for (h, w), (columns, rows) in zip(SHAPES, content, strict=True)
            for row in range(h)
            for column in range(w)
        ]
        torch.testing.assert_close(centers[image], torch.tensor(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(compute_cell_centers(flatten_levels(maps(), None))[0], centers[0], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cell_at_one_percent_of_the_image_is_there_exactly(dtype: torch.dtype) -> None:
    # 0.5 / 50, by way of a canvas of 70 cells: a proposal at 0.01 is left out, one above it is not.
    mask = torch.zeros(1, 8, 560, dtype=torch.bool)
    mask[..., 400:] = True
    centers = compute_cell_centers(flatten_levels([torch.zeros(1, 2, 1, 70, dtype=dtype)], mask))
    assert centers.dtype == dtype
    assert not centers[0, 0, 0] > 0.01
    assert not centers[0, 49, 0] < 0.99


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


def test_projection_starts_from_xavier_without_bias() -> None:
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


def test_nobody_looks_at_padding() -> None:
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
