"""Transformer layers: where positions go, and what padding hides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.transformer import FeedForward, TransformerEncoderLayer


@pytest.fixture
def layer() -> TransformerEncoderLayer:
    torch.manual_seed(0)
    layer = TransformerEncoderLayer(16, 4, 32, activation="gelu").eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


def test_equals_attention_written_out(layer: TransformerEncoderLayer) -> None:
    tokens, positions = torch.randn(2, 6, 16), torch.randn(6, 16)
    q_weight, k_weight, v_weight = layer.self_attention.in_proj_weight.chunk(3)
    q_bias, k_bias, v_bias = layer.self_attention.in_proj_bias.chunk(3)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (4, 4)).transpose(1, 2)  # b t d -> b m t d/m

    q = heads(F.linear(tokens + positions, q_weight, q_bias))
    k = heads(F.linear(tokens + positions, k_weight, k_bias))
    v = heads(F.linear(tokens, v_weight, v_bias))
    attended = ((q @ k.mT / 2.0).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = layer.norm1(tokens + layer.self_attention.out_proj(attended))
    hidden = F.gelu(layer.feed_forward.linear1(x))
    expected = layer.norm2(x + layer.feed_forward.linear2(hidden))
    torch.testing.assert_close(layer(tokens, positions), expected, rtol=0, atol=1e-5)


def test_positions_never_enter_values(layer: TransformerEncoderLayer) -> None:
    # Where all tokens are the same, attention averages the same values, wherever the tokens stand.
    same = torch.randn(2, 1, 16).expand(2, 6, 16)
    one, other = torch.randn(6, 16), torch.randn(6, 16)
    torch.testing.assert_close(layer(same, one), layer(same, other), rtol=0, atol=1e-5)
    tokens = torch.randn(2, 6, 16)
    assert (layer(tokens, one) - layer(tokens, other)).abs().max() > 0.01


def test_what_padded_tokens_hold_changes_nothing_elsewhere(layer: TransformerEncoderLayer) -> None:
    tokens, positions = torch.randn(2, 6, 16), torch.randn(6, 16)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    others = tokens.clone()
    others[1, 4:] += 10
    before, after = layer(tokens, positions, padding), layer(others, positions, padding)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    torch.testing.assert_close(after[1, :4], before[1, :4], rtol=0, atol=1e-6)
    # A picture that is padded attends as one that is shorter.
    torch.testing.assert_close(before[1:, :4], layer(tokens[1:, :4], positions[:4]), rtol=0, atol=1e-5)
    assert (layer(others, positions)[1, :4] - layer(tokens, positions)[1, :4]).abs().max() > 0.01


def test_feed_forward_is_two_linear_layers() -> None:
    torch.manual_seed(1)
    block = FeedForward(4, 8, activation="relu", dropout=0.5).eval()
    x = torch.randn(1, 3, 4)
    torch.testing.assert_close(block(x), block.linear2(F.relu(block.linear1(x))))


def test_dropout_reaches_attention_residuals_and_feed_forward() -> None:
    layer = TransformerEncoderLayer(8, 2, 8, dropout=0.3)
    rates = [child.p for child in layer.modules() if isinstance(child, nn.Dropout)]
    assert rates == [0.3, 0.3]
    assert layer.self_attention.dropout == 0.3


def test_attention_takes_the_fused_path(layer: TransformerEncoderLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = F.scaled_dot_product_attention

    def counted(*args: object, **kwargs: object) -> Tensor:
        calls.append(1)
        return fused(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    layer.train()(torch.randn(2, 6, 16), torch.randn(6, 16))
    assert len(calls) == 1
