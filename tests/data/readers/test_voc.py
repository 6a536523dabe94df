"""Pascal VOC: layouts, coordinates, what is repaired, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reader_examples import ExampleImage


def write_xml(path: Path, name: str, size: tuple[int, int], objects: Sequence[tuple[object, ...]]) -> None:
    """Write an annotation file: objects are a class and xmin, ymin, xmax, ymax, and more tags as a text."""
    height, width = size
    entries = "".join(
        f"<object><name>{one[0]}</name>{''.join(map(str, one[5:]))}<bndbox><xmin>{one[1]}</xmin><ymin>{one[2]}</ymin>"
        f"<xmax>{one[3]}</xmax><ymax>{one[4]}</ymax></bndbox></object>"
        for one in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><filename>{name}</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size>{entries}</annotation>",
        encoding="utf-8",
    )


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    for image in images:
        path = folder / split / image.file_name
        image.save(path)
        write_xml(path.with_suffix(".xml"), image.file_name, (image.height, image.width), image.objects)
