"""Examples of files of RetinaNet of mmdetection."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "backbone.conv1.weight",
            "backbone.layer1.0.conv2.weight",
            "neck.lateral_convs.0.conv.weight",
            "bbox_head.retina_cls.weight",
            "bbox_head.retina_reg.weight",
        )
    ]
