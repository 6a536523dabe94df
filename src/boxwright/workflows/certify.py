"""Measurement of an exported file in its own runtime, beside the model that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boxwright.data.image_check import ProgressCallback
from boxwright.data.records import DetectionData, Record
from boxwright.detector import Detector
from boxwright.evaluation.class_accuracy import class_accuracy
from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation, measure_detections
from boxwright.exporting.certificate import (
    GRAY_LEVEL,
    Certificate,
    ClassDifference,
    ConversionTry,
    Measurements,
    PixelDifference,
    hash_exported,
)
from boxwright.exporting.comparison import (
    FLOAT32_TOLERANCE,
    DetectionAgreement,
    Tolerance,
    compare_images,
    count_sensitive,
    detect_on_inputs,
    read_outputs,
)
from boxwright.exporting.exercise import make_network_inputs
from boxwright.exporting.network_inputs import NetworkInput, open_preprocessing
from boxwright.exporting.settled_detections import settle_detections
from boxwright.workflows.exported import detect_exported
from boxwright.workflows.machine import describe_machine
from boxwright.workflows.observer import Observer
from boxwright.workflows.passports import describe_data
from boxwright.workflows.reading import Data
from boxwright.workflows.validation import Validation
from boxwright_runtime.runtime import Runtime

NUM_COMPARED_IMAGES = 32
"""Images whose detections are compared one by one, on the same network input."""

LOW_TOLERANCE = Tolerance(box=0.05, score=0.05, mask=0.05)
"""Differences of detections that are the same ones in lower precision; they are reported, and decide nothing."""

AnyEvaluation = Evaluation | ClassEvaluation


@dataclass(frozen=True)
class ReferenceModel:
    """A model that was measured, for the files that are made of it.

    Args:
        detector: the model.
        data: that it was measured on.
        evaluation: of it.
        description: of the data, for certificates.
    """

    detector: Detector
    data: DetectionData
    evaluation: AnyEvaluation
    description: Mapping[str, Any]


def measure_reference(
    detector: Detector, read: DetectionData, data: Data, *, split: str, observer: Observer
) -> ReferenceModel:
    """Measure a model on a split, once for all files that are made of it.

    Args:
        detector: it stays as it is.
        read: the split.
        data: as it was named.
        split: its name.
        observer: hears progress.
    """
    validation = Validation(read)
    with observer.track("evaluating the model") as progress:
        if detector.task == "classification":
            evaluation: AnyEvaluation = validation.measure_classes(detector, progress=progress)
        else:
            evaluation = validation.measure(detector, progress=progress)
    return ReferenceModel(detector, read, evaluation, {"split": split, **asdict(describe_data(read, data))})


def certify(
    path: Path,
    reference: ReferenceModel,
    *,
    tolerance: float,
    observer: Observer,
    conversions: Sequence[ConversionTry] = (),
    float32: Sequence[str] = (),
) -> Certificate:
    """Measure a file in its own runtime, from the images' bytes on.

    Args:
        path: of the file, which is all that is known of it here.
        reference: the model that it came from.
        tolerance: points of AP, of 100, that it may lose.
        observer: hears progress.
        conversions: tries that came to the file.
        float32: names of the parts that stay in float32.

    Raises:
        ValueError: the file cannot be run.
    """
    runtime, data = Runtime(path), reference.data
    with observer.track(f"evaluating {path.name}") as progress:
        detections = detect_exported(runtime, data, batch_size=1, progress=progress)
    if reference.detector.task == "classification":
        evaluation: AnyEvaluation = ClassEvaluation(data, detections, class_accuracy(data, detections))
    else:
        evaluation = measure_detections(data, detections)
    measurements = Measurements(
        of_model=_numbers(reference.evaluation),
        of_file=_numbers(evaluation),
        classes=_list_classes(reference.evaluation, evaluation),
    )
    if runtime.metadata.precision == "fp32" and any(abs(loss) > tolerance for loss in measurements.losses().values()):
        measurements = replace(measurements, settled=_measure_settled(reference.evaluation, evaluation))
    with observer.track("comparing detections") as progress:
        agreement, pixels = _compare(path, runtime, reference, progress)
    return Certificate(
        file=path.name,
        sha256=hash_exported(path),
        runtime=runtime.runtime,
        precision=runtime.metadata.precision,
        tolerance=tolerance,
        measurements=measurements,
        agreement=agreement,
        pixels=pixels,
        float32=tuple(float32),
        conversions=tuple(conversions),
        context={
            "data": dict(reference.description),
            "passport": runtime.metadata.passport,
            "machine": describe_machine(),
        },
    )


def _measure_settled(model: AnyEvaluation, file: AnyEvaluation) -> dict[str, float] | None:
    """Measure the detections of a file without what rounding makes of them; None of a classifier."""
    if isinstance(model, ClassEvaluation) or isinstance(file, ClassEvaluation):
        return None
    settled = {key: settle_detections(model.detections[key], one) for key, one in file.detections.items()}
    return _numbers(measure_detections(file.data, settled))


def _numbers(evaluation: AnyEvaluation) -> dict[str, float]:
    if isinstance(evaluation, ClassEvaluation):
        return {"top1": evaluation.accuracy.top1, "top5": evaluation.accuracy.top5}
    masks = {} if evaluation.masks is None else evaluation.masks.numbers()
    return {**evaluation.boxes.numbers(), **{f"segm.{name}": value for name, value in masks.items()}}


def _list_classes(model: AnyEvaluation, file: AnyEvaluation) -> tuple[ClassDifference, ...]:
    return tuple(
        ClassDifference(category_id=number, name=name, of_model=one, of_file=other)
        for (number, name, one), (_, _, other) in zip(_class_rows(model), _class_rows(file), strict=True)
    )


def _class_rows(evaluation: AnyEvaluation) -> Iterable[tuple[int, str, float]]:
    if isinstance(evaluation, ClassEvaluation):
        return [(row.category_id, row.name, row.top1) for row in evaluation.accuracy.per_class]
    return [(row.category_id, row.name, row.AP) for row in evaluation.boxes.per_class]


def _compare(
    path: Path, runtime: Runtime, reference: ReferenceModel, progress: ProgressCallback
) -> tuple[DetectionAgreement, PixelDifference | None]:
    """Compare detections on the file's own network inputs, and these inputs with those of prediction."""
    records = choose_records(reference.data, NUM_COMPARED_IMAGES)
    takes_bytes = runtime.metadata.profile == "bytes"
    preprocess = open_preprocessing(path) if takes_bytes else None
    tolerance = FLOAT32_TOLERANCE if runtime.metadata.precision == "fp32" else LOW_TOLERANCE
    detector = reference.detector.fold().cpu().float()
    agreement, pixels, used = DetectionAgreement(), [], []
    for count, record in enumerate(records, start=1):
        image = record.read()[None]
        inputs = expected = make_network_inputs(image, detector.input_format)
        if preprocess is not None:
            inputs = preprocess(image)
            pixels.append(compare_pixels(inputs, expected, detector))
        arrays = {"images": image} if takes_bytes else {"images": inputs.images, "sizes": inputs.sizes}
        used.append((torch.from_numpy(inputs.images), torch.from_numpy(inputs.sizes)))
        ours = detect_on_inputs(detector, *used[-1])
        agreement += compare_images(ours, read_outputs(runtime.run(arrays)), tolerance)
        progress(count, len(records))
    if runtime.metadata.precision == "fp32" and not agreement.is_within(tolerance):
        num_sensitive = sum(count_sensitive(detector, *one, tolerance) for one in used)
        agreement = replace(agreement, num_sensitive=num_sensitive)
    return agreement, sum_pixels(pixels) if takes_bytes else None


def compare_pixels(inputs: NetworkInput, expected: NetworkInput, detector: Detector) -> PixelDifference:
    """Compare the network inputs of one image, in gray levels before normalization."""
    if inputs.images.shape != expected.images.shape or (inputs.sizes != expected.sizes).any():
        return PixelDifference(images=1, largest=255.0, fraction=1.0, sizes_differ=True)
    order = slice(None, None, -1 if detector.input_format.channel_order == "bgr" else 1)
    std = np.array(detector.input_format.std[order], dtype=np.float32)[:, None, None]
    levels = np.abs(inputs.images - expected.images) * 255 * std
    return PixelDifference(images=1, largest=float(levels.max()), fraction=float((levels.max(1) > GRAY_LEVEL).mean()))


def sum_pixels(differences: Sequence[PixelDifference]) -> PixelDifference:
    """Put the differences of images together, each of the same weight."""
    return PixelDifference(
        images=sum(one.images for one in differences),
        largest=max((one.largest for one in differences), default=0.0),
        fraction=float(np.mean([one.fraction for one in differences])) if differences else 0.0,
        sizes_differ=any(one.sizes_differ for one in differences),
    )


def choose_records(data: DetectionData, count: int) -> list[Record]:
    """Choose so many images, evenly over a split."""
    indices = np.unique(np.linspace(0, len(data.records) - 1, min(count, len(data.records))).round().astype(int))
    return [data.records[index] for index in indices.tolist()]
