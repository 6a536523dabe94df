"""Examples of files of DETR of mmdetection."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "neck.convs.0.conv.weight",
            "encoder.layers.0.self_attn.attn.in_proj_weight",
            "decoder.layers.0.cross_attn.attn.in_proj_weight",
            "decoder.post_norm.weight",
            "bbox_head.fc_cls.weight",
            "bbox_head.fc_reg.weight",
            "query_embedding.weight",
        )
    ]
