"""Examples of files of RetinaNet of torchvision."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "backbone.body.conv1.weight",
            "backbone.fpn.inner_blocks.0.0.weight",
            "head.classification_head.cls_logits.weight",
            "head.regression_head.bbox_reg.weight",
        )
    ]
