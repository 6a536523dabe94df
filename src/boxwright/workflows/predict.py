"""Prediction: a trained detector and images to detections, drawings and JSON."""

from __future__ import annotations

import glob
import json as json_format
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from boxwright.data.image_check import ProgressCallback
from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.drawing import draw_detections, save_drawing
from boxwright.files import check_folder, check_target, write_text
from boxwright.prediction import stream_predictions
from boxwright.structures import Task
from boxwright.workflows.exported import to_tensors
from boxwright.workflows.models import load_predictor
from boxwright.workflows.observer import Observer
from boxwright_runtime import Detections, Runtime
from boxwright_runtime.masks import to_json
from boxwright_runtime.printable_names import printable
from boxwright_runtime.streaming import (
    ImageInput,
    OnError,
    PredictionStream,
    SkippedImage,
    list_image_files,
    list_sources,
)


@dataclass(frozen=True)
class NamedImage:
    """One image, and the name that it goes by: relative to the folder that it was found in, or the file's own.

    Args:
        name: for the drawing and for JSON.
        source: a path, or the image itself.
    """

    name: str
    source: Any

    @property
    def path(self) -> Path | None:
        """The file of the image, where it has one."""
        return self.source if isinstance(self.source, Path) else None


@dataclass(eq=False)
class PredictionResult:
    """Detections of many images.

    Args:
        detections: of each image that could be read, by its name, in the order of the input.
        skipped: images that could not be read.
        best_score: highest score of all, also below the threshold; None where there was no detection at all.
        task: of the detector.
    """

    detections: dict[str, Detections] = field(default_factory=dict)
    skipped: list[SkippedImage] = field(default_factory=list)
    best_score: float | None = None
    task: Task = "detection"

    @property
    def num_detections(self) -> int:
        """Number of detections in all images."""
        return sum(map(len, self.detections.values()))

    def rows(self) -> list[dict[str, Any]]:
        """Return detections as JSON rows, see ``detection_rows``."""
        return [row for name, detections in self.detections.items() for row in detection_rows(name, detections)]


def predict(
    model: str | Path | Detector | Runtime,
    images: ImageInput | Iterable[ImageInput],
    *,
    threshold: float = 0.3,
    out: str | Path | None = None,
    json: str | Path | None = None,
    batch_size: int = 1,
    on_error: OnError = "raise",
    device: str = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> PredictionResult:
    """Detect objects in images, or tell their classes; draw them, and list them as JSON.

    Args:
        model: any source that ``boxwright.load`` takes, or a detector, which stays as it is; or an exported file, as
            a path or a ``Runtime``. Detections are tensors in any case.
        images: as for ``Detector.predict``; text may also be a glob, and folders may stand among several images. All
            are listed first: for a generator of images that memory does not hold, see ``Detector.stream``.
        threshold: least score; a classifier's likeliest class is there in any case.
        out: folder for drawn images; nothing is drawn where None.
        json: file for the detections, as ``detection_rows`` lists them; none where None.
        batch_size: images that go through the network together, at most.
        on_error: ``raise`` at an image that cannot be read, or ``skip`` it and report it.
        device: cpu, cuda, ...; auto takes a GPU where there is one. A detector predicts where it is.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and how far the prediction is; notes become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``: what its files cannot say.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: no model, something is not an image, or an argument is out of range.
    """
    _check_numbers(threshold, batch_size)
    observer = observer or Observer()
    named = name_images(images, observer)
    folder = None if out is None else Path(out)
    if folder is None:
        named = _distinguish(named)
    else:
        check_drawings(folder, named)
    if (target := None if json is None else Path(json)) is not None:
        check_target(target)
    predictor = load_predictor(model, device=device, trusted=trusted, observer=observer, overrides=overrides)
    if isinstance(predictor, Detector):
        predictor = _prepare(predictor, None if isinstance(model, Detector) else device)
    stream = _stream(predictor, named, batch_size=batch_size, on_error=on_error, keep_images=folder is not None)
    with observer.track("predicting") as progress:
        result = _collect(stream, named, threshold, predictor.task, folder, progress)
    if target is not None and result.detections:
        write_text(target, json_format.dumps(result.rows(), indent=1) + "\n")
    return result


def _check_numbers(threshold: float, batch_size: int) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is between 0 and 1, not {threshold}")
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")


def _stream(
    predictor: Detector | Runtime,
    named: Sequence[NamedImage],
    *,
    batch_size: int,
    on_error: OnError,
    keep_images: bool,
) -> PredictionStream:
    images = (one.source for one in named)
    if isinstance(predictor, Runtime):
        return predictor.stream(images, batch_size=batch_size, on_error=on_error, keep_images=keep_images)
    return stream_predictions(
        images,
        predictor.predict_batch,
        predictor.input_format,
        threshold=0.0,
        batch_size=batch_size,
        on_error=on_error,
        keep_images=keep_images,
    )


def _collect(
    stream: PredictionStream,
    named: Sequence[NamedImage],
    threshold: float,
    task: Task,
    folder: Path | None,
    progress: ProgressCallback,
) -> PredictionResult:
    """Collect the detections of a stream by the names of the images, and draw each on the way."""
    result = PredictionResult(task=task)
    for one in stream.results():
        detections = to_tensors(one.detections)
        if len(detections):
            result.best_score = max(result.best_score or 0.0, detections.scores.max().item())
        above, drawn = _select(detections, threshold, task)
        result.detections[named[one.index].name] = above
        if folder is not None and one.image is not None:
            _draw(one.image, drawn, _drawing_path(folder, named[one.index]))
        progress(one.index + 1, len(named))
    result.skipped += stream.skipped
    return result


def _prepare(detector: Detector, device: str | None) -> Detector:
    """Copy the detector for prediction; it stays on its device where None is named."""
    detector = detector.fold()
    if device is not None:
        detector.to(choose_device(device))
    if next(detector.parameters()).device.type == "cpu":
        detector.to(memory_format=torch.channels_last)
    return detector


def _select(detections: Detections, threshold: float, task: Task) -> tuple[Detections, Detections]:
    """Detections above the threshold, and those that are drawn."""
    above = detections.scores >= threshold
    if task == "detection":
        return detections[above], detections[above]
    best = torch.arange(len(detections)) == 0
    # The boxes of an image's classes are all the same: one of them is drawn.
    return detections[best | above], detections[best]


def name_images(images: ImageInput | Iterable[ImageInput], observer: Observer | None = None) -> list[NamedImage]:
    """List the images that are meant: files as they are, folders with all below them, globs; each file once, in order.

    Args:
        images: as for ``predict``.
        observer: hears of files in folders that are no images; notes become warnings where None.

    Raises:
        FileNotFoundError: a path or a glob without a match.
        ValueError: a folder without images.
    """
    named: list[NamedImage] = []
    seen: set[Path] = set()
    sources = [images] if isinstance(images, str | Path) else list_sources(images)[0]
    for index, source in enumerate(sources):
        if not isinstance(source, str | Path):
            named.append(NamedImage(f"image_{index}.png", source))
            continue
        for one in _name_files(str(source), observer or Observer()):
            # Links are images of their own: two names of one file are both predicted.
            if (path := Path(os.path.abspath(one.source))) not in seen:
                seen.add(path)
                named.append(one)
    return named


def _name_files(text: str, observer: Observer) -> list[NamedImage]:
    path = Path(text)
    if os.path.isdir(text):
        files = list_image_files(path, observer.note)
        return [NamedImage(inside.relative_to(path).as_posix(), inside) for inside in files]
    if os.path.exists(text):
        return [NamedImage(path.name, path)]
    matches = sorted(match for match in glob.glob(text, recursive=True) if not os.path.isdir(match))
    if not matches:
        raise FileNotFoundError(f"{printable(text)}: no such image or folder")
    return [NamedImage(Path(match).name, Path(match)) for match in matches]


def _distinguish(images: Sequence[NamedImage]) -> list[NamedImage]:
    """The same with the path for a name where two files have the same name."""
    counts = Counter(one.name for one in images)
    return [
        NamedImage(one.path.as_posix(), one.source) if one.path is not None and counts[one.name] > 1 else one
        for one in images
    ]


def check_drawings(out: Path, images: Sequence[NamedImage]) -> None:
    """Make sure that drawing overwrites no image, and that each image has a drawing of its own.

    Raises:
        ValueError: it would, or two images have the same name.
    """
    check_folder(out)
    sources = {one.path.resolve() for one in images if one.path is not None}
    drawn: dict[Path, NamedImage] = {}
    for one in images:
        target = _drawing_path(out, one)
        if target.resolve() in sources:
            raise ValueError(f"{target} is one of the images, and drawing would overwrite it; give another --out")
        if target in drawn:
            raise ValueError(
                f"{drawn[target].source} and {one.source} would both be drawn to {target}; predict one of them alone, "
                "or give the folder above both"
            )
        drawn[target] = one


def _drawing_path(out: Path, image: NamedImage) -> Path:
    name = Path(image.name)
    # Drawn images are JPEG or PNG, whatever came in.
    return out / (name if name.suffix.lower() in (".jpg", ".jpeg", ".png") else name.with_suffix(".png"))


def _draw(image: UInt8[np.ndarray, "h w 3"], detections: Detections, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    save_drawing(draw_detections(image, detections, detections.categories, threshold=0.0), target)


def detection_rows(file_name: str, detections: Detections) -> list[dict[str, Any]]:
    """List detections of one image as JSON rows: ids of the data set, boxes (x, y, w, h) in pixels, RLE masks."""
    rows: list[dict[str, Any]] = []
    for one in detections:
        assert one.category is not None  # those of a detector have all of them
        x1, y1, x2, y2 = one.box
        row: dict[str, Any] = {
            "file_name": file_name,
            "category_id": one.category.id,
            "category_name": one.category.name,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": one.score,
        }
        rows.append(row if one.mask is None else {**row, "segmentation": to_json(one.mask)})
    return rows
