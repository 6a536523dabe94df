"""Examples of files of two-stage detectors of mmdetection."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "rpn_head.rpn_conv.weight",
            "rpn_head.rpn_cls.weight",
            "backbone.conv1.weight",
            "backbone.layer1.0.conv2.weight",
            "neck.lateral_convs.0.conv.weight",
            "roi_head.bbox_head.fc_cls.weight",
            "roi_head.bbox_head.fc_reg.weight",
        )
    ]
