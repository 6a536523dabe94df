"""Examples of files of the backbones that RT-DETR begins with."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "conv1.conv1_1.conv.weight",
            "res_layers.0.blocks.0.branch2a.conv.weight",
            "res_layers.3.blocks.1.branch2b.conv.weight",
        )
    ]
