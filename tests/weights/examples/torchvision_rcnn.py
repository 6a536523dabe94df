"""Examples of files of two-stage detectors of torchvision."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "backbone.body.conv1.weight",
            "backbone.fpn.inner_blocks.0.0.weight",
            "rpn.head.conv.0.0.weight",
            "rpn.head.cls_logits.weight",
            "roi_heads.box_head.fc6.weight",
            "roi_heads.box_predictor.cls_score.weight",
        )
    ]
