"""YOLO: layouts, data.yaml, boxes and polygons, what is repaired, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reader_examples import ExampleImage


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    labels = folder / "labels" / split
    labels.mkdir(parents=True, exist_ok=True)
    for image in images:
        image.save(folder / "images" / split / image.file_name)
        lines = [
            f"{['cat', 'dog'].index(name)} {(x1 + x2) / 2 / image.width} {(y1 + y2) / 2 / image.height} "
            f"{(x2 - x1) / image.width} {(y2 - y1) / image.height}\n"
            for name, x1, y1, x2, y2 in image.objects
        ]
        if lines:
            (labels / image.file_name).with_suffix(".txt").write_text("".join(lines))
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
