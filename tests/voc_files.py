"""Small data sets of Pascal VOC files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxwright.data.records import DetectionData
from reader_examples import ExampleImage

DOG = ("dog", 1, 2, 11, 12)


def write_xml(path: Path, name: str, size: tuple[int, int], objects: Sequence[tuple[object, ...]]) -> None:
    """Write an annotation file: objects are a class and xmin, ymin, xmax, ymax, and more tags as texts."""
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


def put(root: Path, annotations: str, images: str, stem: str, *objects: tuple[object, ...], name: str = "") -> None:
    """Write an image of 30 x 20 pixels with its annotation file."""
    ExampleImage(f"{stem}.png", 20, 30, ()).save(root / images / f"{stem}.png")
    write_xml(root / annotations / f"{stem}.xml", name or f"{stem}.png", (20, 30), objects)


def objects_of(data: DetectionData) -> dict[str, list[tuple[object, ...]]]:
    """Return class and corners of the objects of each image by its name."""
    return {
        record.path.name: [
            (data.categories[label].name, *box)
            for label, box in zip(record.labels.tolist(), record.boxes().tolist(), strict=True)
        ]
        for record in data.records
    }
