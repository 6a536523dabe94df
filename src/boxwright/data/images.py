"""Images on their way to the network: the one resize, the one normalization.

Training, evaluation and prediction all go through ``read_image`` or ``as_rgb`` of ``boxwright_runtime.images``, then
``resample``, then ``normalize``, and ``pad_inputs`` where there is padding. A second implementation of any of these,
however close, costs accuracy in silence.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from boxwright_runtime.input_format import DEFAULT_RESAMPLING, InputFormat, Resampling, Window
from boxwright_runtime.opencv_resize import resize_as_opencv


def resample(
    image: UInt8[np.ndarray, "h w 3"],
    window: Window,
    height: int,
    width: int,
    fill: tuple[int, int, int] = (0, 0, 0),
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> UInt8[Tensor, "3 {height} {width}"] | Float32[Tensor, "3 {height} {width}"]:
    """Resize a window of an image to ``height`` x ``width`` pixels; the only resize there is.

    Bilinear. A whole image is exactly resized, and a window inside it with whole numbers for
    edges is exactly cropped and resized. Of another window everything lies within a pixel of the result from its exact
    position: pixels of the image that it cuts are resized whole, then cut off in the result.

    Args:
        image: RGB.
        window: the part of the image.
        height: of the result.
        width: of the result.
        fill: RGB of the result where the window lies outside the image.
        resampling: with antialiasing or without; to bytes, or to floats in [0, 255] that are not rounded. Bytes
            without antialiasing are OpenCV's.

    Raises:
        ValueError: the window has no area or does not overlap the image.
    """
    x1, y1, x2, y2 = map(float, window)
    rows, resized_height, kept_rows, input_rows = _overlap(y1, y2, image.shape[0], height)
    columns, resized_width, kept_columns, input_columns = _overlap(x1, x2, image.shape[1], width)
    part = np.require(image[rows, columns], requirements=["C", "W"])
    resized = _resize(part, resized_height, resized_width, resampling)
    if (input_rows, input_columns) == (slice(0, height), slice(0, width)):
        pixels = torch.empty((height, width, 3), dtype=resized.dtype)
    elif any(fill):
        pixels = torch.tensor(fill, dtype=resized.dtype).repeat(height, width, 1)
    else:
        pixels = torch.zeros((height, width, 3), dtype=resized.dtype)
    pixels[input_rows, input_columns] = resized[:, kept_rows, kept_columns].permute(1, 2, 0)
    return pixels.permute(2, 0, 1)


def to_bytes(pixels: UInt8[Tensor, "*b 3 h w"] | Float32[Tensor, "*b 3 h w"]) -> UInt8[Tensor, "*b 3 h w"]:
    """Round pixels in [0, 255] to bytes, where they are none."""
    return pixels if pixels.dtype == torch.uint8 else (pixels + 0.5).to(torch.uint8)


def normalize(
    images: UInt8[Tensor, "*b 3 h w"] | Float32[Tensor, "*b 3 h w"], input_format: InputFormat
) -> Float32[Tensor, "*b 3 h w"]:
    """Normalize bytes, or floats in [0, 255], for the network: ``(x / 255 - mean) / std``, in its order of channels."""
    pixels = images / 255  # a tensor of its own: the rest changes it, instead of making more of them
    if any(input_format.mean):
        pixels -= pixels.new_tensor(input_format.mean)[:, None, None]
    if any(value != 1 for value in input_format.std):
        pixels /= pixels.new_tensor(input_format.std)[:, None, None]
    return pixels.flip(-3) if input_format.channel_order == "bgr" else pixels


def pad_inputs(
    images: Sequence[Float[Tensor, "3 _h _w"]], height: int, width: int, input_format: InputFormat
) -> tuple[Float[Tensor, "b 3 {height} {width}"], Bool[Tensor, "b {height} {width}"]]:
    """Pad normalized images at the bottom and on the right, and make their padding mask.

    The padding is 0, the mean of all images; of ``letterbox`` it is the mean color rounded to bytes.

    **Source**: of ``letterbox``, effdet 0.4.1 (``ResizePad``, ``fill_color`` mean).

    Args:
        images: of ``normalize``; none is larger than the result.
        height: of the result.
        width: of the result.
        input_format: how they were normalized.
    """
    padded = images[0].new_zeros(len(images), 3, height, width)
    if input_format.resize == "letterbox":
        color = torch.tensor(input_format.fill, dtype=torch.uint8)
        padded += normalize(color[:, None, None], input_format).to(padded)
    padding_mask = torch.ones(len(images), height, width, dtype=torch.bool, device=padded.device)
    for image, pixels, mask in zip(images, padded, padding_mask, strict=True):
        _, h, w = image.shape
        pixels[:, :h, :w] = image
        mask[:h, :w] = False
    return padded, padding_mask


def _resize(
    image: UInt8[np.ndarray, "_h _w 3"], height: int, width: int, resampling: Resampling
) -> UInt8[Tensor, "3 {height} {width}"] | Float32[Tensor, "3 {height} {width}"]:
    if not (resampling.antialias or resampling.floats):
        return torch.from_numpy(resize_as_opencv(image, height, width)).permute(2, 0, 1)
    source = torch.from_numpy(image).permute(2, 0, 1)  # h w c -> c h w, in channels-last memory: the fast path
    return interpolate(source.float() if resampling.floats else source, height, width, antialias=resampling.antialias)


def interpolate(
    image: UInt8[Tensor, "3 _h _w"] | Float32[Tensor, "3 _h _w"], height: int, width: int, *, antialias: bool
) -> UInt8[Tensor, "3 {height} {width}"] | Float32[Tensor, "3 {height} {width}"]:
    """Resize an image bilinearly, as torchvision's ``resize`` does, without importing it: that takes a second.

    **Source**: torchvision 0.29 (``transforms.v2.functional.resize``), the same numbers.
    """
    if image.shape[1:] == (height, width):
        return image
    batch = image[None]
    if batch.is_contiguous(memory_format=torch.channels_last):
        # Else torch takes a batch of one for contiguous, and leaves its fast path for bytes.
        batch = batch.as_strided(batch.shape, (image.numel(), *image.stride()))
    in_floats = image.dtype == torch.uint8 and not _resizes_bytes()
    resized: Tensor = F.interpolate(
        batch.float() if in_floats else batch,
        size=[height, width],
        mode="bilinear",
        align_corners=False,
        antialias=antialias,
    )[0]
    return resized.round_().to(torch.uint8) if in_floats else resized


def _resizes_bytes() -> bool:
    """Tell whether torch resizes bytes here without floats."""
    is_arm = platform.machine() in ("aarch64", "arm64")
    return is_arm or torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def _overlap(start: float, stop: float, size: int, input_size: int) -> tuple[slice, int, slice, slice]:
    """Find the part of an image's side of ``size`` that one side of a window shows.

    Returns:
        Pixels of the image, the number that they are resized to, the range of those that is kept, and their positions.
    """
    if not (start < stop and start < size and stop > 0):
        raise ValueError(f"the window {start:g} to {stop:g} has no part of an image's side of {size} pixels")
    low, high = max(start, 0.0), min(stop, float(size))
    first = min(int(low), size - 1)
    last = max(math.ceil(high), first + 1)
    scale = input_size / (stop - start)
    input_first = min(int((low - start) * scale + 0.5), input_size - 1)
    input_last = min(max(int((high - start) * scale + 0.5), input_first + 1), input_size)
    before, after = (int(length * scale + 0.5) for length in (low - first, last - high))
    end = before + input_last - input_first
    return slice(first, last), end + after, slice(before, end), slice(input_first, input_last)
