"""CSV: layouts, names and order of columns, what is repaired, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reader_examples import ExampleImage


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for image in images:
        image.save(folder / "images" / image.file_name)
        size = f"{image.file_name},{image.width},{image.height}"
        rows += [f"{size},{name},{x1},{y1},{x2},{y2}" for name, x1, y1, x2, y2 in image.objects] or [f"{size},,,,,"]
    (folder / f"{split}_labels.csv").write_text("\n".join(rows) + "\n")
