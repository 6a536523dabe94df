"""Evaluation: a trained detector and a data set to metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from boxwright.contracts import LimitedHead, SelectingHead
from boxwright.data.masks import check_masks
from boxwright.data.records import DetectionData, max_objects
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.evaluation.coco_results import write_results
from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation, measure_detections
from boxwright.evaluation.limits import MAX_DETECTIONS, head_limits, note_nothing_to_count
from boxwright.files import check_target, replace_file
from boxwright.structures import Batch, SelectionQuality
from boxwright.workflows.exported import evaluate_exported
from boxwright.workflows.models import load_predictor
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, read_split
from boxwright.workflows.streams import detect_tiled
from boxwright.workflows.validation import Validation
from boxwright_runtime import Runtime


def evaluate(
    model: str | Path | Detector | Runtime,
    data: Data,
    *,
    split: str = "val",
    batch_size: int = 8,
    workers: int = 0,
    max_detections: int | None = None,
    device: str | ComputeOptions = "auto",
    save_detections: str | Path | None = None,
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Evaluation | ClassEvaluation:
    """Measure a detector on a data set: the 12 COCO numbers of boxes and of masks, or accuracies of a classifier.

    Args:
        model: any source that ``boxwright.load`` takes, or a detector, which stays as it is; or an exported file, as
            a path or a ``Runtime``, which is measured in its own runtime.
        data: a folder, ``DataFiles``, an ``ImageDataset``, or one for each split by its name.
        split: the name of the split.
        batch_size: images that go through the network together.
        workers: processes that read images, of an exported file threads; 0 reads in this one.
        max_detections: find and count so many per image; COCO counts 100 per class, a file has its own limit.
        device: auto, cpu, cuda, ..., or ``ComputeOptions`` with the precision and the tiles of large images too, of
            whose joined detections the whole image is measured. A detector is measured where it is,
            an exported file on the CPU and in its own precision.
        save_detections: file for the detections in COCO's results form, with the ids of the annotation file.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and progress; notes become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: no model, faulty data, or an argument that does not fit the model.
    """
    observer, compute = observer or Observer(), ComputeOptions.of(device)
    if max_detections is not None and max_detections < MAX_DETECTIONS:
        raise ValueError(f"max_detections is at least COCO's {MAX_DETECTIONS}, not {max_detections}")
    if (target := None if save_detections is None else Path(save_detections)) is not None:
        check_target(target)
    detector = load_predictor(model, device=compute, trusted=trusted, observer=observer, overrides=overrides)
    task = detector.metadata.task if isinstance(detector, Runtime) else detector.task
    if target is not None and task != "detection":
        raise ValueError(f"--save-detections is for detectors, and {_name(model)} is for {task}")
    options = _EvaluateOptions(split, batch_size, workers, max_detections, _name(model))
    evaluation = _evaluate(detector, data, compute, options, observer)
    if target is not None and isinstance(evaluation, Evaluation):
        detections, ids = evaluation.detections, evaluation.data.category_ids()
        replace_file(target, lambda unfinished: write_results(unfinished, detections, ids))
    return evaluation


def _name(model: str | Path | Detector | Runtime) -> str:
    return str(model) if isinstance(model, str | Path) else "this one"


class _EvaluateOptions(NamedTuple):
    split: str
    batch_size: int
    workers: int
    max_detections: int | None
    name: str


def _evaluate(
    detector: Detector | Runtime, data: Data, compute: ComputeOptions, options: _EvaluateOptions, observer: Observer
) -> Evaluation | ClassEvaluation:
    """Measure a model or an exported file, whole images or tile by tile."""
    split, batch_size, workers, max_detections, name = options
    limit = max_detections or MAX_DETECTIONS
    if isinstance(detector, Detector):
        detector = _raise_limits(detector, max_detections, name)
    elif max_detections is not None and compute.tiles is None:
        raise ValueError(f"--max-detections is for models; {detector.path}, an exported file, has its own limit")
    if compute.tiles is not None:
        read = _read_data(detector, data, split, observer)
        return _evaluate_tiles(detector, read, compute, batch_size=batch_size, limit=limit, observer=observer)
    if isinstance(detector, Runtime):
        return evaluate_exported(detector, data, split=split, observer=observer, batch_size=batch_size, workers=workers)
    read = read_split(data, split, task=detector.task, categories=detector.categories, observer=observer)
    validation = Validation(
        read, max_detections=limit, precision=compute.precision, batch_size=batch_size, workers=workers
    )
    return _evaluate_detector(detector, validation, split, observer)


def _read_data(detector: Detector | Runtime, data: Data, split: str, observer: Observer) -> DetectionData:
    """Read the split whose objects are found tile by tile."""
    categories = detector.metadata.categories if isinstance(detector, Runtime) else detector.categories
    read = read_split(data, split, task=detector.task, categories=categories, observer=observer)
    if detector.metadata.masks if isinstance(detector, Runtime) else detector.needs_masks:
        check_masks(read, crowds=True)
    if nothing := note_nothing_to_count(read, split):
        observer.note(nothing)
    return read


def _evaluate_tiles(
    detector: Detector | Runtime,
    data: DetectionData,
    compute: ComputeOptions,
    *,
    batch_size: int,
    limit: int,
    observer: Observer,
) -> Evaluation:
    """Measure what is found tile by tile on the whole images."""
    with observer.track("evaluating") as progress:
        detections = detect_tiled(detector, data, compute, batch_size=batch_size, progress=progress)
    return measure_detections(data, detections, max_detections=limit)


def _evaluate_detector(
    detector: Detector, validation: Validation, split: str, observer: Observer
) -> Evaluation | ClassEvaluation:
    """Measure a model on a split, with notes on what cannot be found."""
    if detector.needs_masks:
        check_masks(validation.data, crowds=True)
    if detector.task == "detection":
        _note_limits(validation.data, split, detector.head, observer)
    with observer.track("evaluating") as progress:
        if detector.task == "classification":
            return validation.measure_classes(detector, progress=progress)
        selection = SelectionCounter(detector)
        evaluation = validation.measure(detector, observe=selection, progress=progress)
    return evaluation if selection.quality is None else replace(evaluation, selection=selection.quality)


def _raise_limits(detector: Detector, max_detections: int | None, name: str) -> Detector:
    """Copy a detector with room for so many detections; return itself where none are asked for, or it has no limits."""
    if max_detections is None:
        return detector
    if detector.task != "detection":
        raise ValueError(f"--max-detections is for detectors, and {name} is for {detector.task}")
    if not isinstance(detector.head, LimitedHead):
        return detector
    copy = deepcopy(detector)
    assert isinstance(copy.head, LimitedHead)
    copy.head.raise_limits(max_detections)
    return copy


def _note_limits(data: DetectionData, split: str, head: nn.Module, observer: Observer) -> None:
    if nothing := note_nothing_to_count(data, split):
        observer.note(nothing)
    lines = head_limits(data, head)
    if not lines:
        return
    raised = deepcopy(head)
    assert isinstance(raised, LimitedHead)
    raised.raise_limits(max(MAX_DETECTIONS, max_objects(data)))
    fixed = lines.keys() - head_limits(data, raised).keys()
    for option, line in lines.items():
        observer.note(f"{line}: raise --max-detections" if option in fixed else line)


class SelectionCounter:
    """Counts, batch by batch, how good the queries are that a detector's head selects.

    Args:
        detector: whose head may or may not select queries; ``quality`` stays None where it does not.
    """

    def __init__(self, detector: Detector) -> None:
        self.head = detector.head if isinstance(detector.head, SelectingHead) else None
        self.quality: SelectionQuality | None = None

    def __call__(self, output: Any, batch: Batch) -> None:
        """Count one batch."""
        quality = self.head.selection_quality(output, batch.targets) if self.head else None
        if quality is not None:
            self.quality = quality if self.quality is None else self.quality + quality
