"""Options of a narrow query head, whose decoder has two layers."""

from __future__ import annotations

from typing import Any


def narrow_queries(hidden_dim: int, num_heads: int, feedforward_dim: int) -> dict[str, Any]:
    """Give options for DETR's head and for those that follow it."""
    return {
        "hidden_dim": hidden_dim,
        "num_queries": 12,
        "decoder.num_heads": num_heads,
        "decoder.feedforward_dim": feedforward_dim,
        "decoder.num_layers": 2,
        "decoder.dropout": 0.0,
    }
