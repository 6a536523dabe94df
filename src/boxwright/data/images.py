"""Images on their way from a file to the network: the one reading, the one resize, the one normalization.

Training, evaluation, prediction and export all go through ``read_image`` or ``as_rgb``, then ``resample``, then
``normalize``, and ``pad_inputs`` where there is padding. A second implementation of any of these, however close, costs
accuracy in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from boxwright.data.input_format import DEFAULT_RESAMPLING, InputFormat, Resampling, Window
from boxwright.data.opencv_resize import resize_as_opencv

ImageLike = str | Path | Image.Image | npt.NDArray[Any] | Tensor
"""The forms of an image that ``as_rgb`` takes."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Operations that turn an image upright, by its EXIF orientation (TIFF 6.0, tag 274); 1 is upright already."""

_SIDES_SWAP = (5, 6, 7, 8)


def read_image(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    """Read the image in a file as RGB, upright.

    The EXIF orientation is applied. Transparent pixels are laid on black, like the padding around an image.
    Pixels of 16 bits are scaled to 8 over their full range. Of an animation, the first frame counts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, is truncated, has more pixels than Pillow's limit of 179 million,
            or has pixels whose range is unknown (32-bit floats).
    """
    with _open_image(path) as image:
        return _upright_rgb(image)


def image_size(path: Path | str) -> tuple[int, int]:
    """Return (height, width) of the image in a file after its EXIF rotation; read the header only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image.
    """
    with _open_image(path) as image:
        return _upright_size(image)


def check_image(path: Path | str) -> tuple[int, int]:
    """Return ``image_size`` of a file that is decoded as a whole, so that a truncated one is found.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ``read_image`` would not read the file.
    """
    with _open_image(path) as image:
        size = _upright_size(image)
        # A draft is 4 to 10 times faster: every byte is still read, but only 1/64 of the pixels are made.
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (1, 1))
        _upright_rgb(image)
        return size


def as_rgb(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an image in any of the usual forms to RGB, upright.

    Args:
        image: a file's path; a PIL image of any mode (its EXIF orientation is applied, as for a file); an
            array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), in RGB order; a tensor of shape (h, w),
            (1, h, w) or (3, h, w). Arrays and tensors hold uint8, or floats in [0, 1].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the image is none of these.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        try:
            return _upright_rgb(image)
        except Exception as error:  # PIL images decode late: whatever a decoder raises arrives here
            raise ValueError(f"this PIL image cannot be read: {_reason(error)}") from error
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
    pixels = torch.tensor(fill, dtype=resized.dtype).repeat(height, width, 1)
    pixels[input_rows, input_columns] = resized[:, kept_rows, kept_columns].permute(1, 2, 0)
    return pixels.permute(2, 0, 1)


def to_bytes(pixels: UInt8[Tensor, "*b 3 h w"] | Float32[Tensor, "*b 3 h w"]) -> UInt8[Tensor, "*b 3 h w"]:
    """Round pixels in [0, 255] to bytes, where they are none."""
    return pixels if pixels.dtype == torch.uint8 else (pixels + 0.5).to(torch.uint8)


def normalize(
    images: UInt8[Tensor, "*b 3 h w"] | Float32[Tensor, "*b 3 h w"], input_format: InputFormat
) -> Float32[Tensor, "*b 3 h w"]:
    """Normalize bytes, or floats in [0, 255], for the network: ``(x / 255 - mean) / std``, in its order of channels."""
    pixels = images.float() / 255
    if any(input_format.mean):
        pixels = pixels - pixels.new_tensor(input_format.mean)[:, None, None]
    if any(value != 1 for value in input_format.std):
        pixels = pixels / pixels.new_tensor(input_format.std)[:, None, None]
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


@contextmanager
def _open_image(path: Path | str) -> Iterator[Image.Image]:
    """Open an image; any error while it is used becomes one line that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no image {path}") from error
    except UnidentifiedImageError as error:
        empty = Path(path).stat().st_size == 0
        what = "it is empty" if empty else "it is not an image file, or its beginning is damaged"
        raise ValueError(f"{path} cannot be read as an image: {what}") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise errors of any kind, SyntaxError included
        raise ValueError(f"{path} cannot be read as an image: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block does not make the image unreadable: it says nothing, as if absent
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow turns TIFF by itself, and some versions report the turned size before they do.
        width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    return (width, height) if _orientation(image) in _SIDES_SWAP else (height, width)


def _upright_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    image.load()  # before the orientation is asked for: TIFF turns here, and forgets its orientation
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats of unknown range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _three_channels(_gray_16_to_8(np.asarray(image)))
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("RGB"))


def _gray_16_to_8(gray: npt.NDArray[Any]) -> UInt8[np.ndarray, "h w"]:
    if gray.min() < 0 or gray.max() > 65535:
        raise ValueError("its pixels do not fit into 16 bits; save it with 8 or 16 bits")
    return np.asarray((gray.astype(np.uint32) * 255 + 32767) // 65535, dtype=np.uint8)


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
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"an image must hold uint8, or floats in [0, 1]; this one holds {pixels.dtype}")
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
        return _upright_rgb(rgba)
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
