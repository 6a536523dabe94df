"""Exported files in workflows: opened, measured, and their detections as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from boxwright.data.image_check import ProgressCallback
from boxwright.data.masks import check_masks
from boxwright.data.records import DetectionData, Record
from boxwright.devices import ComputeOptions
from boxwright.evaluation.class_accuracy import class_accuracy
from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation, measure_detections
from boxwright.evaluation.limits import note_nothing_to_count
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, read_split
from boxwright_runtime import Detections, Runtime
from boxwright_runtime.printable_names import printable
from boxwright_runtime.read_ahead import ReadAhead, map_ahead

_READ_AHEAD = 4
"""Images that each reading thread may be ahead."""


def open_exported(
    file: str | Path | Runtime, *, device: str | ComputeOptions = "auto", overrides: Mapping[str, Any] | None = None
) -> Runtime:
    """Open an exported file for a workflow.

    Args:
        file: its path; a runtime stays as it is.
        device: auto or cpu, where exported files run, and precision auto, which is that of the file.
        overrides: of a recipe, which a file has none of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no exported file, or an argument is not for such.
    """
    check_file_options(file, device=device, overrides=overrides)
    return file if isinstance(file, Runtime) else Runtime(file)


def check_file_options(
    file: str | Path | Runtime, *, device: str | ComputeOptions, overrides: Mapping[str, Any] | None
) -> None:
    """Raise ``ValueError`` for options that an exported file does not have; see ``open_exported``."""
    name = printable(file.path if isinstance(file, Runtime) else file)
    compute = ComputeOptions.of(device)
    if overrides:
        raise ValueError(
            f"{name} is an exported file, whose options and preprocessing are inside it: {', '.join(overrides)} "
            "is for models; export the model with it"
        )
    if compute.device not in ("auto", "cpu"):
        raise ValueError(
            f"{name} is an exported file, which runs on the CPU: device is auto or cpu, not {compute.device}"
        )
    if compute.precision != "auto":
        raise ValueError(
            f"{name} is an exported file, which has its own precision: leave out precision {compute.precision}, "
            "or export the model in it"
        )


def to_tensors(detections: Detections) -> Detections:
    """Convert arrays to tensors; tensors stay as they are."""
    boxes, scores, labels = map(torch.as_tensor, (detections.boxes, detections.scores, detections.labels))
    return replace(detections, boxes=boxes, scores=scores, labels=labels)


def evaluate_exported(
    runtime: Runtime,
    data: Data,
    *,
    split: str = "val",
    batch_size: int = 8,
    workers: int = 0,
    observer: Observer | None = None,
) -> Evaluation | ClassEvaluation:
    """Measure an exported file on a data set, as ``evaluate`` measures a detector: by the file itself, from bytes.

    Args:
        runtime: the file.
        data: a folder, ``DataFiles``, an ``ImageDataset``, or one for each split by its name.
        split: the name of the split.
        batch_size: images that go through the file together, where they have equal sizes.
        workers: threads that read images ahead; 0 reads them in turn.
        observer: hears notes and progress; notes become warnings where None.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: faulty data, other classes than the file's, or the file fails.
    """
    observer, metadata = observer or Observer(), runtime.metadata
    read = read_split(data, split, task=metadata.task, categories=metadata.categories, observer=observer)
    if metadata.masks:
        check_masks(read, crowds=True)
    if metadata.task == "detection" and (nothing := note_nothing_to_count(read, split)):
        observer.note(nothing)
    with observer.track("evaluating") as progress:
        detections = detect_exported(runtime, read, batch_size=batch_size, workers=workers, progress=progress)
    if metadata.task == "classification":
        return ClassEvaluation(read, detections, class_accuracy(read, detections))
    return measure_detections(read, detections)


def detect_exported(
    runtime: Runtime,
    data: DetectionData,
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: ProgressCallback | None = None,
) -> dict[int, Detections]:
    """Return the detections of a file, or the classes of a classifier's, by image id, as tensors.

    Args:
        runtime: the file.
        data: the images.
        batch_size: images that go through the file together, where they have equal sizes.
        workers: threads that read images ahead; 0 reads them in turn.
        progress: called after each image as ``progress(done, total)``.

    Raises:
        ValueError: an image cannot be read, or has another size than its annotations say; or the file fails.
    """
    detections: dict[int, Detections] = {}
    stream = runtime.stream(_read_images(data.records, workers), batch_size=batch_size)
    for record, one in zip(data.records, stream, strict=True):
        detections[record.image_id] = to_tensors(one)
        if progress is not None:
            progress(len(detections), len(data.records))
    return detections


def _read_images(records: Sequence[Record], workers: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Read images in order, some of them ahead in threads."""
    ahead = ReadAhead(workers, _READ_AHEAD * workers)
    with closing(map_ahead(lambda _, record: record.read(), records, ahead, in_thread=lambda _: True)) as images:
        for _, read in images:
            yield read()
