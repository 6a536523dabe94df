"""Examples of files of DINO's authors."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "transformer.level_embed",
            "transformer.tgt_embed.weight",
            "transformer.encoder.layers.0.self_attn.sampling_offsets.weight",
            "transformer.decoder.layers.0.cross_attn.sampling_offsets.weight",
            "backbone.0.body.conv1.weight",
            "label_enc.weight",
            "input_proj.0.0.weight",
            "class_embed.0.weight",
        )
    ]
