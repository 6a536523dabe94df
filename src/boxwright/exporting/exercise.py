"""A finished file run at every size that it claims to take, before it is called finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from boxwright.data.images import normalize, resample
from boxwright.data.synthetic.scenes import paint_scene
from boxwright.detector import Detector
from boxwright.exporting.comparison import (
    FLOAT32_TOLERANCE,
    DetectionAgreement,
    Tolerance,
    compare_images,
    count_sensitive,
    detect_on_inputs,
    read_outputs,
)
from boxwright.exporting.network_inputs import MakeNetworkInput, NetworkInput, open_preprocessing
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.runtime import Runtime

_NUM_SHAPES = 6

_GRAY_LEVEL = 1.01
"""Difference of pixels that rounding explains, in gray levels of 255."""

_MOST_OTHER_PIXELS = 0.001


class ImageBatch(NamedTuple):
    """Images of one size that go through a file together."""

    num_images: int
    height: int
    width: int


@dataclass(frozen=True)
class ExerciseReport:
    """Result of running a file.

    Args:
        batches: that it was run on.
        agreement: of its detections with those of the model, on the same network inputs.
    """

    batches: tuple[ImageBatch, ...]
    agreement: DetectionAgreement

    def describe(self) -> str:
        """Say it in one line."""
        shapes = ", ".join(f"{one.num_images} x {one.height} x {one.width}" for one in self.batches)
        if not self.agreement.total:
            return f"ran on images of {shapes}, in which the model detects nothing: compare on images of your own"
        return f"ran on images of {shapes}: {self.agreement.describe()}"


def choose_batches(input_format: InputFormat) -> tuple[ImageBatch, ...]:
    """Choose images: few and many, wide, tall and thin, smaller and more than twice as large as the network input.

    Each free dimension of the file has three values; the thin images make the smallest network input.
    """
    side = input_format.image_size
    max_size = input_format.max_size or side
    length = round(1.2 * max_size)
    return (
        ImageBatch(1, round(0.6 * side) | 1, round(0.8 * side) + 3),
        ImageBatch(2, round(2.8 * side) | 1, round(2.2 * side) + 5),
        ImageBatch(5, max(1, round(length / (3 * max(1.0, max_size / side)))), length),
    )


def exercise(
    path: Path,
    detector: Detector,
    *,
    batches: Sequence[ImageBatch] | None = None,
    tolerance: Tolerance = FLOAT32_TOLERANCE,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ExerciseReport:
    """Run a file in its own runtime, and compare it with the detector on the network inputs that it made itself.

    Args:
        path: of the file.
        detector: that it was made from; it stays as it is.
        batches: images to run it on; those of ``choose_batches`` where None.
        tolerance: up to which it agrees.
        progress: hears of batches done, of all.

    Raises:
        ValueError: it fails at a size, computes other sizes or pixels, or detects something else.
    """
    runtime, input_format = Runtime(path), detector.input_format
    detector = _copy_to_cpu(detector)
    batches = choose_batches(input_format) if batches is None else batches
    from_file = open_preprocessing(path) if runtime.metadata.profile == "bytes" else None
    agreement, used = DetectionAgreement(), []
    for index, batch in enumerate(batches):
        images = paint_images(batch)
        inputs = make_network_inputs(images, input_format)
        if from_file is None:
            outputs = runtime.run({"images": inputs.images, "sizes": inputs.sizes})
        else:
            outputs = runtime.run({"images": images})
            inputs = _check_preprocessing(from_file, images, inputs, input_format)
        used.append((torch.from_numpy(inputs.images), torch.from_numpy(inputs.sizes)))
        expected = detect_on_inputs(detector, *used[-1])
        agreement += compare_images(expected, read_outputs(outputs), tolerance)
        progress(index + 1, len(batches))
    if not agreement.is_within(tolerance):
        num_sensitive = sum(count_sensitive(detector, *one, tolerance) for one in used)
        agreement = replace(agreement, num_sensitive=num_sensitive)
    report = ExerciseReport(tuple(batches), agreement)
    if not report.agreement.is_within(tolerance):
        raise ValueError(f"the file does not agree with the model: it {report.describe()}")
    return report


def paint_images(batch: ImageBatch) -> UInt8[np.ndarray, "b height width 3"]:
    """Paint images of shapes, each another one, the same for equal batches."""
    random = np.random.default_rng(list(batch))
    return np.stack(
        [paint_scene(random, batch.height, batch.width, _NUM_SHAPES).image for _ in range(batch.num_images)]
    )


def make_network_inputs(images: UInt8[np.ndarray, "b height width 3"], input_format: InputFormat) -> NetworkInput:
    """Resize and normalize images of one size as prediction does."""
    _, height, width, _ = images.shape
    size = input_format.input_size(height, width)
    window, resampling = input_format.window(height, width), input_format.resampling
    pixels = torch.stack([resample(image, window, *size, resampling=resampling) for image in images])
    sizes = np.array([(height, width, *size)] * len(images), dtype=np.int64)
    return NetworkInput(normalize(pixels, input_format).numpy(), sizes)


def _check_preprocessing(
    from_file: MakeNetworkInput,
    images: UInt8[np.ndarray, "b height width 3"],
    expected: NetworkInput,
    input_format: InputFormat,
) -> NetworkInput:
    """Make the network input in the file's runtime, and compare it with that of prediction."""
    made = from_file(images)
    if made.sizes.tolist() != expected.sizes.tolist() or made.images.shape != expected.images.shape:
        raise ValueError(
            f"the file makes a network input of {made.sizes[0].tolist()} (height, width, input height, input width) "
            f"where the model makes {expected.sizes[0].tolist()}"
        )
    levels = count_gray_levels(made.images - expected.images, input_format)
    if (other := float((levels > _GRAY_LEVEL).mean())) > _MOST_OTHER_PIXELS:
        raise ValueError(f"{other:.1%} of the pixels of the file's network input differ by more than one gray level")
    return made


def count_gray_levels(
    difference: Float32[np.ndarray, "b 3 h w"], input_format: InputFormat
) -> Float32[np.ndarray, "b 3 h w"]:
    """Convert differences of network inputs to gray levels, of which there are 255."""
    std = np.array(input_format.std, dtype=np.float32)
    ordered = std[::-1] if input_format.channel_order == "bgr" else std
    levels: Float32[np.ndarray, "b 3 h w"] = np.abs(difference) * 255 * ordered[:, None, None]
    return levels


def _copy_to_cpu(detector: Detector) -> Detector:
    parameters = list(detector.parameters())
    if all(one.device.type == "cpu" and one.dtype == torch.float32 for one in parameters):
        return detector
    return deepcopy(detector).cpu().float()
