"""Examples of files of EfficientNet-PyTorch."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make the names that a file begins and ends with."""
    return [
        example_files(
            "_conv_stem.weight",
            "_bn0.weight",
            "_blocks.0._depthwise_conv.weight",
            "_blocks.0._bn1.weight",
            "_conv_head.weight",
            "_fc.weight",
        )
    ]
