"""Small data sets in COCO format, made up on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxwright.data.open import open_data
from boxwright.data.records import DetectionData

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Finds one of the real data sets beside the repository by name; skips where it is absent."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"the real data set {name!r} is not beside the repository")
        return SHARED / name

    return find


class TinyCoco:
    """A COCO document of three images that a test can break, and its files.

    a.png (40 wide, 30 high) has a cat and a dog, sub/b.png (20, 50) a crowd of cats, c.png (16, 16) nothing.
    Category ids are sparse and not in order: dog 90, cat 7.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.document: Any = {
            "images": [
                {"id": 11, "file_name": "a.png", "width": 40, "height": 30},
                {"id": 5, "file_name": "sub/b.png", "width": 20, "height": 50},
                {"id": 8, "file_name": "c.png", "width": 16, "height": 16},
            ],
            "annotations": [
                {"id": 1, "image_id": 11, "category_id": 90, "bbox": [1, 2, 10, 5]},
                {
                    "id": 2,
                    "image_id": 5,
                    "category_id": 7,
                    "bbox": [0, 0, 20, 50],
                    "iscrowd": 1,
                    "area": 600,
                    "segmentation": {"counts": [0, 600, 400], "size": [50, 20]},
                },
                {"id": 3, "image_id": 11, "category_id": 7, "bbox": [30.5, 20.5, 20, 20], "area": 99.5},
            ],
            "categories": [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}],
        }

    def write(self, annotations: str = "annotations/train.json", images: str = "images") -> Path:
        """Write the annotation file and the images; returns the annotation file."""
        file = self.root / annotations
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.document))
        for index, (name, height, width) in enumerate([("a.png", 30, 40), ("sub/b.png", 50, 20), ("c.png", 16, 16)]):
            path = self.root / images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return file

    def read(self, **options: Any) -> DetectionData:
        """Write the set, and read it back."""
        return open_data(None, annotations=self.write(), images=self.root / "images", **options)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCoco:
    return TinyCoco(tmp_path / "set")
