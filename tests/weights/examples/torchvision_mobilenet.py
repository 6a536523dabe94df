"""Examples of files of torchvision's MobileNetV2."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make the names that a file begins and ends with."""
    return [
        example_files(
            "features.0.0.weight",
            "features.1.conv.0.0.weight",
            "features.2.conv.2.weight",
            "features.18.0.weight",
            "classifier.1.weight",
        )
    ]
