"""A drawn data set whose ids are as people's are: with gaps, not from 1, not in the file's order."""

from __future__ import annotations

import json
from pathlib import Path

from boxwright.data.synthetic.shapes import draw_data_set

NAMES = {58: "ring", 65: "cross", 72: "star", 79: "triangle", 86: "square", 93: "circle"}
"""The classes by id; a label is the place in this order."""


def draw_with_sparse_ids(folder: Path, *, train: int, val: int, image_size: int, seed: int) -> Path:
    """Draws it into ``folder``, which is returned."""
    for file in draw_data_set(folder, train=train, val=val, image_size=image_size, seed=seed).values():
        document = json.loads(file.read_text())
        for category in document["categories"]:
            category["id"] = _category_id(category["id"])
        for annotation in document["annotations"]:
            annotation["category_id"] = _category_id(annotation["category_id"])
            annotation["image_id"] = _image_id(annotation["image_id"])
        for image in document["images"]:
            image["id"] = _image_id(image["id"])
        file.write_text(json.dumps(document))
    return folder


def _category_id(drawn: int) -> int:
    return 100 - 7 * drawn


def _image_id(drawn: int) -> int:
    return 1000 + 3 * drawn
