"""Examples of files of EfficientDet of effdet."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "backbone.conv_stem.weight",
            "backbone.blocks.0.0.conv_dw.weight",
            "fpn.resample.3.conv.conv.weight",
            "fpn.cell.0.fnode.0.after_combine.conv.conv_pw.weight",
            "class_net.predict.conv_dw.weight",
            "class_net.predict.conv_pw.weight",
            "box_net.predict.conv_pw.weight",
        )
    ]
