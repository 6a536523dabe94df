"""Examples of DETR's own files."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make the names of a file, as many as it is recognized by, and some more."""
    return [
        example_files(
            "transformer.encoder.layers.0.self_attn.in_proj_weight",
            "transformer.decoder.layers.0.multihead_attn.in_proj_weight",
            "class_embed.weight",
            "bbox_embed.layers.0.weight",
            "query_embed.weight",
            "input_proj.weight",
            "backbone.0.body.conv1.weight",
        )
    ]
