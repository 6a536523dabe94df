"""Examples of files of ResNets of torchvision."""

from __future__ import annotations

from boxwright.weights.source import SourceFiles
from weights.source_checks import example_files


def examples() -> list[SourceFiles]:
    """Make some of the names of a file."""
    return [
        example_files(
            "conv1.weight",
            "bn1.weight",
            "bn1.running_var",
            "layer1.0.conv1.weight",
            "layer4.1.conv2.weight",
            "fc.weight",
        )
    ]
