"""Transformer layers: where positions go, and what padding hides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.transformer import (
    FeedForward,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    xavier_matrices,
)


def shaken(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer.eval()


@pytest.fixture
def layer() -> nn.Module:
    return shaken(TransformerEncoderLayer(16, 4, 32, activation="gelu"))


def written_out(attention: nn.MultiheadAttention, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of four heads of width 4."""
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (4, 4)).transpose(1, 2)  # b t d -> b m t d/m
        for x, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
    )
    return attention.out_proj(((q @ k.mT / 2.0).softmax(-1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_equals_attention_written_out(pre_norm: bool) -> None:
    layer = shaken(TransformerEncoderLayer(16, 4, 32, activation="gelu", pre_norm=pre_norm))
    tokens, positions = torch.randn(2, 6, 16), torch.randn(6, 16)

    def attended(x: Tensor) -> Tensor:
        return written_out(layer.self_attention, x + positions, x + positions, x)

    def fed(x: Tensor) -> Tensor:
        return layer.feed_forward.linear2(F.gelu(layer.feed_forward.linear1(x)))  # type: ignore[no-any-return]

    if pre_norm:
        x = tokens + attended(layer.norm1(tokens))
        expected = x + fed(layer.norm2(x))
    else:
        x = layer.norm1(tokens + attended(tokens))
        expected = layer.norm2(x + fed(x))
    torch.testing.assert_close(layer(tokens, positions), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_decoder_layer_equals_attention_written_out(pre_norm: bool) -> None:
    layer = shaken(TransformerDecoderLayer(16, 4, 32, pre_norm=pre_norm))
    queries, positions = torch.randn(2, 3, 16), torch.randn(3, 16)
    memory, keys = torch.randn(2, 6, 16), torch.randn(2, 6, 16)

    def among(x: Tensor) -> Tensor:
        return written_out(layer.self_attention, x + positions, x + positions, x)

    def to_memory(x: Tensor) -> Tensor:
        return written_out(layer.cross_attention, x + positions, keys, memory)

    def fed(x: Tensor) -> Tensor:
        return layer.feed_forward.linear2(F.relu(layer.feed_forward.linear1(x)))  # type: ignore[no-any-return]

    x = queries
    for norm, part in ((layer.norm1, among), (layer.norm2, to_memory), (layer.norm3, fed)):
        x = x + part(norm(x)) if pre_norm else norm(x + part(x))
    torch.testing.assert_close(layer(queries, positions, keys, memory), x, rtol=0, atol=1e-5)


def test_decoder_layer_sees_no_padding() -> None:
    layer = shaken(TransformerDecoderLayer(16, 4, 32))
    queries, positions, memory = torch.randn(2, 3, 16), torch.randn(3, 16), torch.randn(2, 6, 16)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    padded = layer(queries, positions, memory, memory, padding)
    shorter = layer(queries[1:], positions, memory[1:, :4], memory[1:, :4])
    torch.testing.assert_close(padded[1:], shorter, rtol=0, atol=1e-5)
    torch.testing.assert_close(padded[:1], layer(queries, positions, memory, memory)[:1], rtol=0, atol=1e-5)
    assert (layer(queries, positions, memory, memory)[1] - padded[1]).abs().max() > 0.01


def test_no_positions_are_positions_of_zero(layer: nn.Module) -> None:
    tokens, zero = torch.randn(2, 6, 16), torch.zeros(6, 16)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    with torch.no_grad():
        # Equal queries, keys and values take another kernel in evaluation.
        content = layer(tokens, None, padding)
        expected = layer(tokens, zero, padding)
    torch.testing.assert_close(content[0], expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(content[1, :4], expected[1, :4], rtol=0, atol=1e-5)
    decoder = shaken(TransformerDecoderLayer(16, 4, 32))
    torch.testing.assert_close(
        decoder(tokens, None, tokens, tokens), decoder(tokens, zero, tokens, tokens), rtol=0, atol=1e-5
    )


def test_positions_never_enter_values(layer: nn.Module) -> None:
    # Where all tokens are the same, attention averages the same values, wherever the tokens stand.
    same = torch.randn(2, 1, 16).expand(2, 6, 16)
    one, other = torch.randn(6, 16), torch.randn(6, 16)
    torch.testing.assert_close(layer(same, one), layer(same, other), rtol=0, atol=1e-5)
    tokens = torch.randn(2, 6, 16)
    assert (layer(tokens, one) - layer(tokens, other)).abs().max() > 0.01


def test_what_padded_tokens_hold_changes_nothing_elsewhere(layer: nn.Module) -> None:
    tokens, positions = torch.randn(2, 6, 16), torch.randn(6, 16)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    others = tokens.clone()
    others[1, 4:] += 10
    before, after = layer(tokens, positions, padding), layer(others, positions, padding)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    torch.testing.assert_close(after[1, :4], before[1, :4], rtol=0, atol=1e-6)
    # An image that is padded attends as one that is shorter.
    torch.testing.assert_close(before[1:, :4], layer(tokens[1:, :4], positions[:4]), rtol=0, atol=1e-5)
    assert (layer(others, positions)[1, :4] - layer(tokens, positions)[1, :4]).abs().max() > 0.01


def test_feed_forward_is_two_linear_layers() -> None:
    torch.manual_seed(1)
    block = FeedForward(4, 8, activation="relu", dropout=0.5).eval()
    x = torch.randn(1, 3, 4)
    torch.testing.assert_close(block(x), block.linear2(F.relu(block.linear1(x))))


def test_dropout_reaches_attention_residuals_and_feed_forward() -> None:
    # Two in each, because one module serves all residuals.
    for layer in (TransformerEncoderLayer(8, 2, 8, dropout=0.3), TransformerDecoderLayer(8, 2, 8, dropout=0.3)):
        assert [child.p for child in layer.modules() if isinstance(child, nn.Dropout)] == [0.3, 0.3]
        assert all(x.dropout == 0.3 for x in layer.modules() if isinstance(x, nn.MultiheadAttention))


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_dropout_of_everything_leaves_the_residual(pre_norm: bool) -> None:
    decoder = TransformerDecoderLayer(8, 2, 8, dropout=0.3, pre_norm=pre_norm).train()
    encoder = TransformerEncoderLayer(8, 2, 8, dropout=0.3, pre_norm=pre_norm).train()
    encoder.dropout.p = decoder.dropout.p = 1.0
    x, positions = torch.randn(2, 5, 8), torch.randn(5, 8)
    # Fresh norms do nothing to what is normalized already.
    expected = x if pre_norm else F.layer_norm(x, (8,))
    torch.testing.assert_close(encoder(x, positions), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(decoder(x, positions, x, x), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_residuals_do_not_overflow_in_half_precision(pre_norm: bool) -> None:
    torch.manual_seed(0)
    x, positions = torch.randn(1, 4, 16), torch.randn(4, 16)
    encoder = TransformerEncoderLayer(16, 4, 32, pre_norm=pre_norm)
    decoder = TransformerDecoderLayer(16, 4, 32, pre_norm=pre_norm)
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        for layer in (encoder, decoder):
            layer.feed_forward.linear2.weight *= 3e5
        assert encoder.feed_forward(x).isinf().any()
        assert encoder(x, positions).isfinite().all()
        assert decoder(x, positions, x, x).isfinite().all()


def test_matrices_start_from_xaviers_distribution() -> None:
    torch.manual_seed(0)
    layer = TransformerDecoderLayer(32, 4, 64)
    before = {name: parameter.clone() for name, parameter in layer.named_parameters()}
    xavier_matrices(layer)
    for name, parameter in layer.named_parameters():
        if parameter.ndim == 1:
            torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)
            continue
        rows, columns = parameter.shape
        bound = (6 / (rows + columns)) ** 0.5
        assert 0.98 * bound < parameter.abs().max() <= bound, name


def test_attention_takes_the_fused_path(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = F.scaled_dot_product_attention

    def counted(*args: object, **kwargs: object) -> Tensor:
        calls.append(1)
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    layer.train()(torch.randn(2, 6, 16), torch.randn(6, 16))
    assert len(calls) == 1
    decoder, memory = TransformerDecoderLayer(16, 4, 32), torch.randn(2, 6, 16)
    decoder(torch.randn(2, 3, 16), torch.randn(3, 16), memory, memory, torch.zeros(2, 6, dtype=torch.bool))
    assert len(calls) == 3
