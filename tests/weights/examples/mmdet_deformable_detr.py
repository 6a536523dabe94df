"""Examples of files of Deformable DETR of mmdetection."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "level_embed",
            "neck.convs.0.conv.weight",
            "encoder.layers.0.self_attn.sampling_offsets.weight",
            "decoder.layers.0.self_attn.attn.in_proj_weight",
            "bbox_head.cls_branches.0.weight",
            "query_embedding.weight",
        )
    ]
