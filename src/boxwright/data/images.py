"""Images on their way from a file to the network: the one reading, the one resize, the one normalization.

Training, evaluation, prediction and export all go through ``read_image`` or ``as_rgb``, then ``resample``, then
``normalize``, and ``pad_inputs`` where there is padding. A second implementation of any of these, however close, costs
accuracy in silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from boxwright.data.image_decoding import decode_image, load_upright, rgb_pixels
from boxwright.data.image_file import describe_error, image_errors, load_file
from boxwright.data.input_format import DEFAULT_RESAMPLING, InputFormat, Resampling, Window
from boxwright.data.opencv_resize import resize_as_opencv
from boxwright.data.quiet_decoding import quiet_decoding
from boxwright.data.sample_range import scale_samples

ImageLike = str | Path | Image.Image | npt.NDArray[Any] | Tensor
"""The forms of an image that ``as_rgb`` takes."""


def read_image(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    """Read the image in a file as RGB, upright.

    The EXIF orientation is applied. Transparent pixels are laid on black, like the padding around an image.
    Samples of 16 bits are scaled to 8 over the range that they use, see ``sample_depth``. Of an animation, the first
    frame counts. A JPEG whose end is missing is read as far as it goes; the rest is gray.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, is truncated or damaged, has more pixels than Pillow's limit of 179 million,
            or has pixels whose range is unknown (32-bit floats).
    """
    with image_errors(path):
        return decode_rgb(load_file(path))


def decode_rgb(file: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image file as ``read_image`` does.

    Raises:
        Exception: Pillow raises anything on damaged files; see ``describe_error``.
    """
    return rgb_pixels(decode_image(file).image)


def as_rgb(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an image in any of the usual forms to RGB, upright.

    Args:
        image: a file's path; a PIL image of any mode (its EXIF orientation is applied, as for a file); an
            array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), in RGB order; a tensor of shape (h, w),
            (1, h, w) or (3, h, w). Arrays and tensors hold uint8, floats in [0, 1], or uint16, which is scaled as in
            a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the image is none of these.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        try:
            with quiet_decoding():
                return rgb_pixels(load_upright(image).image)
        except Exception as error:  # PIL images decode late: whatever a decoder raises arrives here
            raise ValueError(f"this PIL image cannot be read: {describe_error(error)}") from error
    if isinstance(image, np.ndarray | Tensor):
        return _three_channels(_as_uint8(_channels_last(image)))
    raise ValueError(f"an image must be a path, a PIL image, an array or a tensor, not {type(image).__name__}")


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
    resized: Tensor = F.resize(
        source.float() if resampling.floats else source,
        [height, width],
        interpolation=InterpolationMode.BILINEAR,
        antialias=resampling.antialias,
    )
    return resized


def _channels_last(image: npt.NDArray[Any] | Tensor) -> npt.NDArray[Any]:
    """Return an array (h, w) or (h, w, c), from such an array or from a tensor (h, w) or (c, h, w)."""
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        pixels = (image.float() if image.is_floating_point() else image).numpy()  # NumPy has no bfloat16
        fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[0] in (1, 3))
        pixels = pixels.transpose(1, 2, 0) if fits and pixels.ndim == 3 else pixels
    else:
        pixels = image
        fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if not fits or 0 in pixels.shape:
        raise ValueError(
            "an array must have the shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), a tensor (h, w), "
            f"(1, h, w) or (3, h, w); this {type(image).__name__} has {tuple(image.shape)}"
        )
    return pixels


def _as_uint8(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return scale_samples(pixels)[0]
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"an image must hold uint8, uint16, or floats in [0, 1]; this one holds {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"an image of floats must lie in [0, 1]; this one spans {low:g} to {high:g}: "
            "undo its normalization, or pass bytes"
        )
    return (pixels * 255 + 0.5).astype(np.uint8)


def _three_channels(pixels: npt.NDArray[np.uint8]) -> UInt8[np.ndarray, "h w 3"]:
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 4:
        rgba = Image.fromarray(np.ascontiguousarray(pixels))
        return rgb_pixels(rgba)
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return np.ascontiguousarray(pixels)


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
