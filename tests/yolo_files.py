"""Small data sets of YOLO files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from boxwright.data.records import DetectionData
from reader_examples import ExampleImage

DOG = "1 0.5 0.5 0.25 0.5"
DOG_BOX = [1, 15, 5, 25, 15]
TRIANGLE = "0 0.25 0.5 0.5 0.5 0.5 1"
TRIANGLE_BOX = [0, 10, 10, 20, 20]
NAMES = "names: [cat, dog]\n"


def put(root: Path, image: str, labels: str | None = None, *lines: str) -> None:
    """Write an image of 40 x 20 pixels, and its label file where one is named."""
    ExampleImage(Path(image).name, 20, 40, ()).save(root / image)
    if labels is not None:
        (root / labels).parent.mkdir(parents=True, exist_ok=True)
        (root / labels).write_text("".join(f"{line}\n" for line in lines))


def boxes_of(data: DetectionData) -> dict[str, list[list[float]]]:
    """Return label and corners of the objects of each image by its name."""
    return {
        record.path.name: [
            [label, *box]
            for label, box in zip(record.labels.tolist(), np.round(record.boxes(), 4).tolist(), strict=True)
        ]
        for record in data.records
    }
