"""Examples of files of DEIMv2's authors."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files

NAMES = (
    "decoder.dec_score_head.0.weight",
    "decoder.pre_bbox_head.layers.0.weight",
    "decoder.decoder.layers.0.swish_ffn.w12.weight",
    "decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight",
)


def examples() -> list[SourceFiles]:
    """Make some of the names of files: on a vision transformer, and on an HGNetv2 with the lite encoder."""
    return [
        example_files(*NAMES, "backbone.dinov3._model.cls_token", "encoder.lateral_convs.0.conv.weight"),
        example_files(
            *NAMES,
            "encoder.input_proj.0.conv.weight",
            "encoder.down_sample1.1.weight",
            "backbone.stem.stem1.conv.weight",
        ),
    ]
