"""Examples of files of D-FINE's authors."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "encoder.input_proj.0.conv.weight",
            "decoder.dec_score_head.0.weight",
            "decoder.pre_bbox_head.layers.0.weight",
            "decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight",
            "backbone.stem.stem1.conv.weight",
        )
    ]
