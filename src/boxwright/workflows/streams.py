"""Images on their way through a detector or an exported file, whole or tile by tile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

import torch

from boxwright.data.image_check import ProgressCallback
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.prediction import predict_prepared, prepare_image, stream_predictions
from boxwright.workflows.exported import to_tensors
from boxwright_runtime import Detections, Runtime
from boxwright_runtime.image_windows import reads_in_parts
from boxwright_runtime.streaming import ImageInput, OnError, PredictionStream, PredictPrepared, Prepare
from boxwright_runtime.tiled_streaming import TiledStream

_USUAL_BATCH = 4
"""Images of a batch, as fast in it as in larger ones: of RT-DETR-R18 at 320 pixels in bfloat16 on a CPU with
AVX512-BF16, 107 to 110 ms each of one core, alone 133 ms."""


def prepare_predictor(predictor: Detector | Runtime, compute: ComputeOptions) -> Detector | Runtime:
    """Copy a detector for prediction, on its device; an exported file is prepared already.

    Raises:
        ValueError: sides are asked of a head that does not predict them.
    """
    if isinstance(predictor, Runtime):
        return predictor
    detector = predictor.fold()
    if compute.sides_std:
        detector.tell_sides_std()
    if next(detector.parameters()).device.type == "cpu":
        detector.to(memory_format=torch.channels_last)
    return detector


class BatchFunctions(NamedTuple):
    """The two steps from an image to its detections, for whoever makes batches by itself.

    Args:
        prepare: from RGB to what the model takes; images of equal shape may share a batch.
        predict: all detections of what was prepared, on the CPU.
    """

    prepare: Prepare
    predict: PredictPrepared


def batch_functions(detector: Detector, compute: ComputeOptions) -> BatchFunctions:
    """Return the steps with which a detector predicts, of a copy that is prepared as ``predict`` does."""
    prepared = prepare_predictor(detector, compute)
    assert isinstance(prepared, Detector)
    predict_batch = partial(prepared.predict_batch, precision=compute.precision)
    return BatchFunctions(
        partial(prepare_image, input_format=prepared.input_format),
        partial(predict_prepared, predict_batch=predict_batch),
    )


class StreamOptions(NamedTuple):
    """Batches of a stream, and what it hands out.

    Args:
        batch_size: images, or tiles, at a time; where None, 4 if all become the same square, else 1.
        on_error: ``raise`` at an image that cannot be read, or ``skip`` it.
        keep_images: hand out each image beside its detections.
    """

    batch_size: int | None = None
    on_error: OnError = "raise"
    keep_images: bool = False


def stream_images(
    predictor: Detector | Runtime, images: Iterable[ImageInput], compute: ComputeOptions, options: StreamOptions
) -> PredictionStream | TiledStream:
    """Stream all detections of images.

    Args:
        predictor: a detector, of which a copy is prepared, or an exported file.
        images: one after the other.
        compute: precision, tiles, and whether sides are asked for.
        options: batches, and what is handed out.

    Raises:
        ValueError: sides are asked of an exported file, or tiles of a classifier.
    """
    return stream_prepared(prepare_predictor(predictor, compute), images, compute, options)


def stream_prepared(
    predictor: Detector | Runtime, images: Iterable[ImageInput], compute: ComputeOptions, options: StreamOptions
) -> PredictionStream | TiledStream:
    """Stream as ``stream_images`` does, by what ``prepare_predictor`` has returned, which serves many streams."""
    if compute.tiles is None:
        return _stream(images, predictor, compute, options)
    if predictor.task != "detection":
        raise ValueError(f"tiles are for detectors, and this model is for {predictor.task}")
    of_tiles = StreamOptions(options.batch_size)
    make_stream = partial(_stream, predictor=predictor, compute=compute, options=of_tiles)
    on_error, keep_images = options.on_error, options.keep_images
    return TiledStream(images, make_stream, compute.tiles, on_error=on_error, keep_images=keep_images)


def _stream(
    images: Iterable[ImageInput], predictor: Detector | Runtime, compute: ComputeOptions, options: StreamOptions
) -> PredictionStream:
    batch_size, on_error, keep_images = options
    if isinstance(predictor, Runtime):
        if compute.sides_std:
            raise ValueError("sides_std is of models: an exported file tells boxes, scores and labels alone")
        return predictor.stream(images, batch_size=batch_size or 1, on_error=on_error, keep_images=keep_images)
    if batch_size is None:
        # Images of other sizes would wait for each other, and large ones fill the memory.
        batch_size = _USUAL_BATCH if predictor.input_format.resize in ("square", "center_crop") else 1
    return stream_predictions(
        images,
        partial(predictor.predict_batch, precision=compute.precision),
        predictor.input_format,
        threshold=0.0,
        batch_size=batch_size,
        on_error=on_error,
        keep_images=keep_images,
    )


def detect_tiled(
    predictor: Detector | Runtime,
    data: DetectionData,
    compute: ComputeOptions,
    *,
    batch_size: int,
    progress: ProgressCallback | None = None,
) -> dict[int, Detections]:
    """Return the detections of the images of a data set, tile by tile, by image id, as tensors.

    Args:
        predictor: a detector or an exported file.
        data: the images.
        compute: tiles and precision.
        batch_size: tiles at a time, at most.
        progress: called after each image as ``progress(done, total)``.

    Raises:
        ValueError: an image cannot be read, or has another size than its annotations say.
    """
    detections: dict[int, Detections] = {}
    with closing(stream_images(predictor, _read_images(data), compute, StreamOptions(batch_size))) as stream:
        for record, one in zip(data.records, stream, strict=True):
            detections[record.image_id] = to_tensors(one)
            if progress is not None:
                progress(len(detections), len(data.records))
    return detections


def _read_images(data: DetectionData) -> Iterator[ImageInput]:
    for record in data.records:
        yield record.path if record.source is None and reads_in_parts(record.path) else record.read()
