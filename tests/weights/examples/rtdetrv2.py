"""Examples of files of RT-DETRv2's own files."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "encoder.input_proj.0.conv.weight",
            "decoder.dec_score_head.0.weight",
            "decoder.enc_output.proj.weight",
            "decoder.decoder.layers.0.cross_attn.num_points_scale",
            "backbone.conv1.conv1_1.conv.weight",
        )
    ]
