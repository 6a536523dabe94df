"""Examples of files of RF-DETR."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "class_embed.weight",
            "refpoint_embed.weight",
            "query_feat.weight",
            "transformer.enc_output.0.weight",
            "transformer.decoder.layers.0.cross_attn.sampling_offsets.weight",
            "backbone.0.encoder.encoder.embeddings.position_embeddings",
            "backbone.0.projector.stages.0.0.cv1.conv.weight",
        )
    ]
