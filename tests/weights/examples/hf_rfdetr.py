"""Examples of files of RF-DETR of Hugging Face."""

from __future__ import annotations

from dataclasses import replace

from boxwright.weights.source import SourceFiles
from weights.examples.rfdetr import examples as authors_examples


def examples() -> list[SourceFiles]:
    """Make some of the names of a file: those of its authors, beside a configuration."""
    return [replace(files, config={"model_type": "rf_detr"}) for files in authors_examples()]
