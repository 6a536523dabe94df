"""Options of narrow heads: query heads whose decoder has two layers, two-stage heads of few regions."""

from __future__ import annotations

from typing import Any


def narrow_queries(hidden_dim: int, num_heads: int, feedforward_dim: int) -> dict[str, Any]:
    """Make options for DETR's head and for those that follow it."""
    return {
        "hidden_dim": hidden_dim,
        "num_queries": 12,
        "decoder.num_heads": num_heads,
        "decoder.feedforward_dim": feedforward_dim,
        "decoder.num_layers": 2,
        "decoder.dropout": 0.0,
    }


def narrow_regions(hidden_dim: int, pre_nms_top_k: int, post_nms_top_k: int, num_samples: int) -> dict[str, Any]:
    """Make options for two-stage heads, whose proposals are as many in training as in prediction."""
    return {
        "boxes.hidden_dim": hidden_dim,
        "rpn.pre_nms_top_k": [pre_nms_top_k, pre_nms_top_k],
        "rpn.post_nms_top_k": [post_nms_top_k, post_nms_top_k],
        "roi.num_samples": num_samples,
    }
