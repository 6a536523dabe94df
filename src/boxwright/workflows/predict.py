"""Prediction: a trained detector and images to detections, drawings and JSON."""

from __future__ import annotations

import json as json_format
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from boxwright.data.image_check import ProgressCallback
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.drawing import DrawingQueue, Drawings, describe_missing_glyphs
from boxwright.files import check_target, replace_file, write_text
from boxwright.structures import Category, Task
from boxwright.workflows.exported import to_tensors
from boxwright.workflows.geographic import GEO_SUFFIX, Georeference, read_georeference, write_features
from boxwright.workflows.models import load_predictor
from boxwright.workflows.named_images import NamedImage, check_drawings, distinguish, drawing_path, name_images
from boxwright.workflows.observer import Observer
from boxwright.workflows.predicted_results import CocoFile, PredictedResults, TakeDetections
from boxwright.workflows.streams import StreamOptions, stream_images
from boxwright_runtime import Detections, Runtime
from boxwright_runtime.answers import detection_rows, select_answered, select_drawn
from boxwright_runtime.streaming import ImageInput, OnError, PredictionStream, SkippedImage, Threshold
from boxwright_runtime.tiled_streaming import TiledStream, scale_boxes
from boxwright_runtime.video_names import is_video, show_source


@dataclass(eq=False)
class PredictionResult:
    """Detections of many images.

    Args:
        detections: of each image that could be read, by its name, in the order of the input.
        skipped: images that could not be read.
        best_score: highest score of all, also below the threshold; None where there was no detection at all.
        task: of the detector.
        threshold: least score of ``detections``; of each class, by its label, where they were tuned.
    """

    detections: dict[str, Detections] = field(default_factory=dict)
    skipped: list[SkippedImage] = field(default_factory=list)
    best_score: float | None = None
    task: Task = "detection"
    threshold: float | tuple[float, ...] = 0.3

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
    threshold: Threshold | None = None,
    out: str | Path | Drawings | None = None,
    json: str | Path | None = None,
    coco: str | Path | CocoFile | None = None,
    batch_size: int | None = None,
    on_error: OnError = "raise",
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> PredictionResult:
    """Detect objects in images, or tell their classes; draw them, and list them as JSON.

    Args:
        model: any source that ``boxwright.load`` takes, a detector, an exported file or a ``Runtime``.
        images: as for ``Detector.predict``; text may also be a glob, and folders may stand among several images. All
            are listed first; for more images than memory holds, see ``predict_shards``.
        threshold: least score, 0.3 where None; a classifier's likeliest class is there in any case. ``tuned`` takes
            that of each class, of ``tune_thresholds``.
        out: folder for drawn images, with their style where it is ``Drawings``; nothing is drawn where None.
        json: file for the detections, as ``detection_rows`` lists them; as GeoJSON where it ends in ``.geojson``.
        coco: file for the detections in COCO's results form, all of them where ``threshold`` is None; see ``CocoFile``.
        batch_size: images at a time, at most; where None, 4 if every image becomes the same square, else 1.
        on_error: ``raise`` at an image that cannot be read, or ``skip`` it and report it.
        device: as for ``evaluate``, with the tiles of large images too. A detector predicts where it is.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and how far the prediction is; notes become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: no model, something is not an image, or an argument is out of range.
    """
    _check_arguments(0.3 if threshold is None else threshold, batch_size, images)
    observer, compute = observer or Observer(), ComputeOptions.of(device)
    named = name_images(images, observer)
    drawings = Drawings(out) if isinstance(out, str | Path) else out
    named = distinguish(named) if drawings is None else check_drawings(Path(drawings.folder), named)
    results = CocoFile(coco) if isinstance(coco, str | Path) else coco
    _check_targets(json, results)
    georeferences = _read_georeferences(json, named)
    predictor = load_predictor(model, device=compute, trusted=trusted, observer=observer, overrides=overrides)
    chosen = predictor.thresholds() if threshold == "tuned" else threshold
    options = StreamOptions(batch_size, on_error, drawings is not None)
    stream = stream_images(predictor, [one.source for one in named], compute, options)
    collector = _Collector(stream, named, 0.3 if chosen is None else chosen, predictor.task, drawings)
    with observer.track("predicting") as progress, closing(stream):
        if results is None:
            collector.collect(progress)
        else:
            rows = PredictedResults(named, predictor, results, threshold=chosen or 0.0, observer=observer)
            replace_file(Path(results.path), partial(rows.write, collect=partial(collector.collect, progress)))
    collector.note_missing_glyphs(observer)
    if json is not None and collector.result.detections:
        write_text(Path(json), _to_json(collector.result, georeferences))
    return collector.result


def _to_json(result: PredictionResult, georeferences: Mapping[str, Georeference] | None) -> str:
    """List detections as JSON; as GeoJSON where the georeferences of the images are known."""
    if georeferences is not None:
        return write_features(result.detections, georeferences)
    return json_format.dumps(result.rows(), indent=1) + "\n"


def _check_arguments(threshold: Threshold, batch_size: int | None, images: ImageInput | Iterable[ImageInput]) -> None:
    """Check numbers, and refuse a video, whose frames would all be in memory."""
    check_prediction(threshold, batch_size)
    if isinstance(images, str | Path) and is_video(images):
        raise ValueError(f"{show_source(images)} is a video, and predict is for images: take predict_video")


def check_prediction(threshold: Threshold, batch_size: int | None) -> None:
    """Raise ``ValueError`` where a number is out of range."""
    if threshold != "tuned" and (isinstance(threshold, str) or not 0 <= threshold <= 1):
        raise ValueError(f"threshold is between 0 and 1, or tuned, not {threshold}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")


def _check_targets(json: str | Path | None, results: CocoFile | None) -> None:
    for path in (json, None if results is None else results.path):
        if path is not None:
            check_target(Path(path))


def _read_georeferences(json: str | Path | None, named: Sequence[NamedImage]) -> dict[str, Georeference] | None:
    """Read where images lie, for a file of GeoJSON; None for another."""
    if json is None or Path(json).suffix.lower() != GEO_SUFFIX:
        return None
    return {one.name: read_georeference(one.path) for one in named}


class _Collector:
    """Takes the detections of a stream, image by image: collects and draws them.

    Args:
        stream: of the images.
        named: the images.
        threshold: least score; or that of each class, by its label.
        task: of the model.
        drawings: nothing is drawn where None.
    """

    def __init__(
        self,
        stream: PredictionStream | TiledStream,
        named: Sequence[NamedImage],
        threshold: float | tuple[float, ...],
        task: Task,
        drawings: Drawings | None,
    ) -> None:
        self.stream, self.named, self.drawings = stream, named, drawings
        self._categories: Sequence[Category] = ()
        self._drawn_labels: set[int] = set()
        self.result = PredictionResult(task=task, threshold=threshold)

    def collect(self, progress: ProgressCallback, also: TakeDetections | None = None) -> None:
        """Take all images.

        Args:
            progress: called after each image.
            also: called with the index of each image and all of its detections.
        """
        result = self.result
        with nullcontext() if self.drawings is None else DrawingQueue(self.drawings.style) as queue:
            for one in self.stream.results():
                detections, image = to_tensors(one.detections), self.named[one.index]
                if len(detections):
                    result.best_score = max(result.best_score or 0.0, detections.scores.max().item())
                above = select_answered(detections, result.threshold, result.task)
                drawn = select_drawn(above, result.task)
                result.detections[image.name] = above
                if queue is not None and self.drawings is not None and one.image is not None:
                    drawn = scale_boxes(drawn, one.image_scale)
                    queue.draw(one.image, drawn, drawing_path(Path(self.drawings.folder), image))
                    self._categories = drawn.categories
                    self._drawn_labels.update(drawn.labels.tolist())
                if also is not None:
                    also(one.index, detections)
                progress(one.index + 1, len(self.named))
        result.skipped += self.stream.skipped

    def note_missing_glyphs(self, observer: Observer) -> None:
        """Note names of classes that could not be drawn."""
        if self.drawings is not None:
            note = describe_missing_glyphs(self._categories, self._drawn_labels, self.drawings.style)
            if note is not None:
                observer.note(note)
