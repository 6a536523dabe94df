"""Examples of files of EdgeCrafter's authors."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files

NAMES = (
    "backbone.backbone.register_token",
    "backbone.projector.0.conv.weight",
    "encoder.lateral_convs.0.conv.weight",
    "decoder.dec_score_head.0.weight",
    "decoder.pre_bbox_head.layers.0.weight",
    "decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight",
)


def examples() -> list[SourceFiles]:
    """Make some of the names of files: without and with masks."""
    return [example_files(*NAMES), example_files(*NAMES, "decoder.decoder.segmentation_head.bias")]
