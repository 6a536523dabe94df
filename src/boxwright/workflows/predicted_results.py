"""Predictions as a results file of COCO's form, with the ids of an annotation file where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxwright.data.image_check import first_names
from boxwright.data.open import open_data
from boxwright.detector import Detector
from boxwright.evaluation.coco_results import ResultsWriter
from boxwright.structures import Category
from boxwright.workflows.named_images import NamedImage
from boxwright.workflows.observer import Observer
from boxwright_runtime import Detections, Runtime

TakeDetections = Callable[[int, Detections], None]
"""Called with the index of each image and all of its detections."""


@dataclass(frozen=True)
class CocoFile:
    """A file for detections in COCO's results form, and whose ids it has.

    Args:
        path: of the file.
        annotations: annotation file with the ids of images, found by their names, and of categories. Where None,
            images have the ids of their manifest or else are numbered from 1, each row has the name of its image too,
            and categories have the model's ids.
    """

    path: str | Path
    annotations: str | Path | None = None


class PredictedResults:
    """Ids of images and classes in a results file.

    Args:
        named: the images.
        predictor: whose classes are detected.
        results: whose ids they are.
        threshold: least score of what is written; or that of each class, by its label.
        observer: hears what was repaired in the annotations.

    Raises:
        FileNotFoundError: there is no such annotation file.
        ValueError: it is faulty, or an image is not in it; or the model is a classifier.
    """

    def __init__(
        self,
        named: Sequence[NamedImage],
        predictor: Detector | Runtime,
        results: CocoFile,
        *,
        threshold: float | tuple[float, ...],
        observer: Observer,
    ) -> None:
        task = predictor.metadata.task if isinstance(predictor, Runtime) else predictor.task
        if task != "detection":
            raise ValueError(f"COCO's results are of detectors, and this model is for {task}: write --json instead")
        categories = predictor.metadata.categories if isinstance(predictor, Runtime) else predictor.categories
        self.threshold = threshold
        self._names = [one.name for one in named] if results.annotations is None else None
        if results.annotations is None:
            self.image_ids = _number(named)
            self.category_ids = [one.id for one in categories]
        else:
            self.image_ids, self.category_ids = _ids_of(Path(results.annotations), named, categories, observer)

    def write(self, path: Path, collect: Callable[[TakeDetections], None]) -> None:
        """Write the file while ``collect`` makes the detections."""
        with path.open("w", encoding="utf-8") as file:
            writer = ResultsWriter(file, self.category_ids)

            def write(index: int, detections: Detections) -> None:
                name = None if self._names is None else self._names[index]
                writer.write(self.image_ids[index], detections.above(self.threshold), name)

            collect(write)
            writer.finish()


def _number(named: Sequence[NamedImage]) -> list[int]:
    """Return the ids that a manifest gives to all images, or else numbers from 1.

    Raises:
        ValueError: some are no whole numbers, or several images have the same.
    """
    if not named or not all(one.id for one in named):
        return list(range(1, len(named) + 1))
    try:
        ids = [int(one.id) for one in named]
    except ValueError:
        raise ValueError("ids of images in COCO's form are whole numbers, and some of the manifest are texts") from None
    if len(set(ids)) < len(ids):
        raise ValueError("several images of the manifest have the same id")
    return ids


def _ids_of(
    path: Path, named: Sequence[NamedImage], categories: Sequence[Category], observer: Observer
) -> tuple[list[int], list[int]]:
    """Return the id of each image, found by its path below some folder, and that of each class."""
    data = open_data(None, annotations=path, categories=categories, with_images=False)
    for note in data.notes:
        observer.note(note)
    by_name: dict[str, int | None] = {}
    for record in data.records:
        parts = record.path.parts
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            # Two images of one name are told apart by their folders alone.
            by_name[name] = record.image_id if name not in by_name else None
    ids = [_find(one, by_name) for one in named]
    missing = [one.name for one, image_id in zip(named, ids, strict=True) if image_id is None]
    if missing:
        raise ValueError(
            f"{path}: {len(missing):,} of {len(named):,} images are not in it, or not by one name alone: "
            f"{first_names(missing, 3)}; predict the images that it lists"
        )
    return [image_id for image_id in ids if image_id is not None], data.category_ids()


def _find(image: NamedImage, by_name: dict[str, int | None]) -> int | None:
    """Find an image by the longest end of its path that is known."""
    parts = Path(image.name if image.path is None else image.path.absolute()).parts
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((by_name[name] for name in names if name in by_name), None)
