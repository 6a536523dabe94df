"""Images with objects that the test of each annotation format writes in this format."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from boxwright.data.findings import Finding
from boxwright.data.records import DetectionData
from boxwright.structures import Task


@dataclass(frozen=True)
class ExampleImage:
    """One image to write.

    Args:
        file_name: with its suffix.
        height: in pixels.
        width: in pixels.
        objects: class and corners x1, y1, x2, y2 of each, in whole pixels.
    """

    file_name: str
    height: int
    width: int
    objects: tuple[tuple[str, int, int, int, int], ...]

    def save(self, path: Path) -> None:
        """Write the pixels; make the folder where it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(self.file_name)).integers(0, 256, (self.height, self.width, 3), np.uint8)
        Image.fromarray(pixels).save(path)


def example_images(task: Task, split: str) -> list[ExampleImage]:
    """Return the images of a split: of several sizes and classes, in another order in each split."""
    if task == "classification":
        images = [
            ExampleImage("a.png", 20, 30, (("dog", 0, 0, 30, 20),)),
            ExampleImage("b.png", 25, 16, (("cat", 0, 0, 16, 25),)),
            ExampleImage("c.png", 31, 33, (("dog", 0, 0, 33, 31),)),
        ]
    else:
        images = [
            ExampleImage("a.png", 20, 30, (("dog", 1, 2, 11, 19), ("cat", 15, 0, 30, 20))),
            ExampleImage("b.png", 25, 16, ()),
            ExampleImage("c.png", 31, 33, (("cat", 4, 5, 6, 7), ("dog", 0, 10, 33, 31), ("dog", 8, 8, 20, 9))),
        ]
    return images if split == "train" else images[::-1]


def write_reader_example(name: str, folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write a split in a format, as ``tests/data/readers/test_NAME.py`` does."""
    _writer(name)(folder, split, images)


@cache
def _writer(name: str) -> Callable[[Path, str, Sequence[ExampleImage]], None]:
    file = Path(__file__).parent / "data" / "readers" / f"test_{name}.py"
    assert file.is_file(), f"{file} must have write_example(folder, split, images)"
    spec = importlib.util.spec_from_file_location(f"example_of_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Callable[[Path, str, Sequence[ExampleImage]], None], module.write_example)


def findings_of(data: DetectionData) -> list[Finding]:
    """Return the findings of a reader: all but that classes have no objects."""
    return [finding for finding in data.findings if finding.kind.name != "unused_category"]


def kinds_of(data: DetectionData) -> Counter[str]:
    """Return the number of findings of each kind by its name, of those of a reader."""
    return Counter(finding.kind.name for finding in findings_of(data))
