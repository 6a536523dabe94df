"""Images on their way through a detector: resized, predicted in evaluation mode."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from boxwright.contracts import UncertainHead
from boxwright.data.images import resample
from boxwright.structures import ImageSize
from boxwright_runtime.detections import Detections
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.streaming import ImageInput, OnError, PredictionStream, PreparedImage

InputPixels = UInt8[Tensor, "b 3 h w"] | Float32[Tensor, "b 3 h w"]
"""Images of equal input size before they are normalized: bytes, or floats in [0, 255]."""

PredictBatch = Callable[[InputPixels, Sequence[ImageSize]], list[Detections]]
"""Detections of images of equal input size, on the CPU."""


def stream_predictions(
    images: Iterable[ImageInput],
    predict_batch: PredictBatch,
    input_format: InputFormat,
    *,
    threshold: float | Sequence[float],
    batch_size: int,
    on_error: OnError,
    keep_images: bool = False,
) -> PredictionStream:
    """Detect objects in images one after the other; see ``PredictionStream``.

    Args:
        images: one after the other; never collected.
        predict_batch: detections of images of equal input size.
        input_format: sizes of the network input.
        threshold: detections with a lower score are left out.
        batch_size: images that go through the network together, at most.
        on_error: ``raise`` or ``skip``.
        keep_images: hand out each image beside its detections.
    """

    return PredictionStream(
        images,
        partial(prepare_image, input_format=input_format),
        partial(predict_prepared, predict_batch=predict_batch),
        threshold=threshold,
        batch_size=batch_size,
        on_error=on_error,
        keep_images=keep_images,
    )


def prepare_image(rgb: UInt8[np.ndarray, "h w 3"], input_format: InputFormat) -> PreparedImage:
    """Resize an image to the network input, in the form that ``predict_prepared`` takes."""
    height, width = rgb.shape[:2]
    shape = input_format.input_size(height, width)
    window, resampling = input_format.window(height, width), input_format.resampling
    pixels = resample(rgb, window, *shape, resampling=resampling)
    return PreparedImage(shape, (pixels, ImageSize(height, width, *shape)))


def predict_prepared(contents: Sequence[tuple[Tensor, ImageSize]], predict_batch: PredictBatch) -> list[Detections]:
    """Detect objects in the contents of prepared images of equal shape."""
    return predict_batch(torch.stack([pixels for pixels, _ in contents]), [size for _, size in contents])


_MODES_LOCK = threading.Lock()

_SWITCHED: dict[int, int] = {}
"""Modules in training that are in evaluation for now, by ``id``, and how many predictions need it."""


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Switch modules to evaluation, and each of them and of their children back to its own mode at the end.

    Module by module: frozen parts of a detector in training are in evaluation mode already, and stay so. Threads may
    share modules: the last of them to leave switches back.
    """
    switched: list[nn.Module] = []
    try:
        with _MODES_LOCK:
            for module in dict.fromkeys(module for one in modules for module in one.modules()):
                if not module.training and id(module) not in _SWITCHED:
                    continue
                _SWITCHED[id(module)] = _SWITCHED.get(id(module), 0) + 1
                switched.append(module)
                module.training = False
        yield
    finally:
        with _MODES_LOCK:
            for module in switched:
                _SWITCHED[id(module)] -= 1
                if not _SWITCHED[id(module)]:
                    del _SWITCHED[id(module)]
                    module.training = True


def require_sides_std(head: nn.Module) -> None:
    """Refuse a head that does not tell how far each side of a box may be off."""
    if not isinstance(head, UncertainHead):
        raise ValueError("the head of this detector predicts no distributions, as sides_std needs: dfine's does")
