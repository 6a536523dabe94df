"""LabelMe: layouts, kinds of shapes, groups, images, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from reader_examples import ExampleImage


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    for image in images:
        path = folder / split / image.file_name
        image.save(path)
        shapes = [
            {"label": name, "points": [[x2, y1], [x1, y2]], "shape_type": "rectangle", "group_id": None}
            for name, x1, y1, x2, y2 in image.objects
        ]
        document = {"shapes": shapes, "imagePath": image.file_name, "imageData": None}
        path.with_suffix(".json").write_text(json.dumps(document))
