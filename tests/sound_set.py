"""A data set without any fault, in COCO format, for tests that plant one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 64, 96
CLASSES = ("cell", "screw", "moon")
IMAGES = {"train": 12, "val": 10}


class SoundSet:
    """Documents of two splits and their images, to change before ``write``.

    Each image has one object of each class. ``documents[split]`` is the COCO document; ``pixels[name]`` the image;
    ``after`` changes the folder of images once they are written.

    Args:
        folder: for the data set.
        masks: give each object a polygon, a rectangle with cut corners.
    """

    def __init__(self, folder: Path, *, masks: bool = False) -> None:
        self.folder = folder
        self.documents: dict[str, Any] = {}
        self.pixels: dict[str, Image.Image] = {}
        self.after: list[Callable[[Path], None]] = []
        random = np.random.default_rng(17)
        number = 0
        for split, count in IMAGES.items():
            images, annotations = [], []
            for _ in range(count):
                number += 1
                name = f"{number:03d}.png"
                coarse = Image.fromarray(random.integers(0, 256, (8, 12, 3), dtype=np.uint8))
                self.pixels[name] = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
                images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
                for label in range(len(CLASSES)):
                    left, top = 30 * label + int(random.integers(0, 8)), int(random.integers(0, 30))
                    width, height = int(random.integers(10, 20)), int(random.integers(10, 30))
                    annotation = {
                        "id": 10 * number + label,
                        "image_id": number,
                        "category_id": label + 1,
                        "bbox": [left, top, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                    }
                    if masks:
                        right, bottom = left + width, top + height
                        points = (left + 4, top, right, top, right, bottom - 4, right - 4, bottom, left, bottom, left)
                        annotation["segmentation"] = [[*points, top + 4]]
                        annotation["area"] = width * height - 16
                    annotations.append(annotation)
            categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
            self.documents[split] = {"images": images, "annotations": annotations, "categories": categories}

    def images(self, split: str = "train") -> list[Any]:
        """Entries of the images of a split."""
        images: list[Any] = self.documents[split]["images"]
        return images

    def annotations(self, split: str = "train") -> list[Any]:
        """Entries of the objects of a split; those of the first image come first."""
        annotations: list[Any] = self.documents[split]["annotations"]
        return annotations

    def entries(self, key: str) -> Iterator[Any]:
        """Entries of all splits."""
        for document in self.documents.values():
            yield from document[key]

    def write(self) -> Path:
        """Write everything; return the folder."""
        (self.folder / "annotations").mkdir(parents=True)
        (self.folder / "images").mkdir()
        for split, document in self.documents.items():
            text = json.dumps(document)
            (self.folder / "annotations" / f"{split}.json").write_text(text, encoding="utf-8")
        for name, image in self.pixels.items():
            image.save(self.folder / "images" / name)
        for change in self.after:
            change(self.folder / "images")
        return self.folder
