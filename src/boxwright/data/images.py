"""Pictures on their way from a file to the network: the one reading, the one resize, the one normalisation.

Training, evaluation, prediction and export all go through ``read_image`` or ``as_rgb``, then ``resample``,
then ``normalise``. A second implementation of any of these, however close, costs accuracy in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, UInt8
from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

Picture = str | Path | Image.Image | npt.NDArray[Any] | Tensor
"""What ``as_rgb`` makes a picture of."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation (TIFF 6.0, tag 274); 1 is upright already."""

_SIDES_SWAP = (5, 6, 7, 8)


Resize = Literal["square", "shortest_side"]


class Sizing(NamedTuple):
    """From the size of a picture to that of its canvas, in pixels.

    Args:
        image_size: side of a square canvas, or the shortest side of one that keeps the aspect ratio.
        resize: which of the two.
        max_size: longest side of a canvas that keeps the aspect ratio; for a longer one, both sides shrink.
    """

    image_size: int
    resize: Resize = "square"
    max_size: int | None = None

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the canvas for a picture, or a part of one, of this size.

        **Source**: the sizes of facebookresearch/detr 29901c5 (``get_size_with_aspect_ratio``). Hence the longest
        side is rounded down, and may exceed ``max_size`` by what rounding the shortest adds to it. Differs where the
        shortest side would be 0: it is 1, and the longest ``max_size``.
        """
        if self.resize == "square":
            return self.image_size, self.image_size
        short, long = sorted((height, width))
        shortest = self.image_size
        if self.max_size is not None and long / short * shortest > self.max_size:
            shortest = round(self.max_size * short / long)
        longest = int(shortest * long / short)
        if self.max_size is not None and shortest < 1:
            shortest, longest = 1, self.max_size
        return (shortest, longest) if height <= width else (longest, shortest)


@dataclass(frozen=True, kw_only=True)
class InputFormat:
    """What a network wants its pictures to look like; stored with the model.

    Args:
        image_size: in pixels; side of the network's input where that is square, and then a multiple of 32; else the
            shortest side of a picture's canvas.
        resize: ``square`` stretches every picture to the same square; ``shortest_side`` keeps the aspect ratio, and
            pictures of one training batch are padded to the largest.
        max_size: with ``shortest_side``, longest side of a canvas in pixels; pictures that would be longer become
            smaller on both sides.
        mean: taken off each channel, RGB with values in [0, 1].
        std: what each channel is divided by after that.
    """

    image_size: int = 640
    resize: Resize = "square"
    max_size: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be {' or '.join(get_args(Resize))}, not {self.resize}")
        if self.resize == "square":
            self._check_square()
        elif self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, not {self.image_size}")
        elif self.max_size is not None and self.max_size < self.image_size:
            raise ValueError(f"max_size must be at least image_size ({self.image_size}), not {self.max_size}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ValueError(
                "mean and std must have three numbers each, for red, green and blue, std positive ones; "
                f"they are {self.mean} and {self.std}"
            )

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the canvas for a picture of this size; of nothing else, so that batches do not matter."""
        return self.sizing(self.image_size).canvas(height, width)

    def sizing(self, image_size: int) -> Sizing:
        """The same format at another image size; ``max_size`` changes with it."""
        max_size = None if self.max_size is None else round(self.max_size * image_size / self.image_size)
        return Sizing(image_size, self.resize, max_size)

    def _check_square(self) -> None:
        if self.image_size <= 0 or self.image_size % 32:
            nearest = max(32, round(self.image_size / 32) * 32)
            raise ValueError(
                f"image_size must be a positive multiple of 32, not {self.image_size}; nearest is {nearest}"
            )
        if self.max_size is not None:
            raise ValueError(f"max_size {self.max_size} needs resize shortest_side: a square has one size")


class Window(NamedTuple):
    """The part of a picture that becomes the network's canvas, in pixels of the picture.

    It may reach outside the picture: that part of the canvas is filled.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    @classmethod
    def whole(cls, height: int, width: int) -> Window:
        """The window that is all of a picture of this size."""
        return cls(0.0, 0.0, float(width), float(height))


def read_image(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    """The picture in a file as RGB, upright.

    The EXIF orientation is applied. Transparent pixels are laid on black, like the canvas around a picture.
    Pixels of 16 bits are scaled to 8 over their full range. Of an animation, the first frame counts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture, is truncated, has more pixels than Pillow's limit of 179 million,
            or has pixels whose range is unknown (32-bit floats).
    """
    with _opened(path) as image:
        return _upright_rgb(image)


def image_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of the picture in a file after its EXIF rotation; reads the header only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture.
    """
    with _opened(path) as image:
        return _upright_size(image)


def check_image(path: Path | str) -> tuple[int, int]:
    """Like ``image_size``, but decodes the whole file, so that a truncated one is found.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ``read_image`` would not read the file.
    """
    with _opened(path) as image:
        size = _upright_size(image)
        # A draft is 4 to 10 times faster: every byte is still read, but only 1/64 of the pixels are made.
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (1, 1))
        _upright_rgb(image)
        return size


def as_rgb(image: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """A picture in any of the usual forms as RGB, upright.

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
) -> UInt8[Tensor, "3 {height} {width}"]:
    """Make a canvas of ``height`` x ``width`` pixels from a window of a picture; the only resize there is.

    Bilinear with antialiasing. The edges of the picture's part are rounded to whole pixels, in the picture
    and on the canvas: a whole picture is exactly resized, and a window inside it with whole numbers for edges
    is exactly cropped and resized.

    Args:
        image: RGB.
        window: what becomes the canvas.
        height: of the canvas.
        width: of the canvas.
        fill: RGB of the canvas where the window lies outside the picture.

    Raises:
        ValueError: the window has no area or does not overlap the picture.
    """
    rows, canvas_rows = _overlap(float(window.y1), float(window.y2), image.shape[0], height)
    columns, canvas_columns = _overlap(float(window.x1), float(window.x2), image.shape[1], width)
    part = np.require(image[rows, columns], requirements=["C", "W"])
    resized = F.resize(
        torch.from_numpy(part).permute(2, 0, 1),  # h w c -> c h w, in channels-last memory: the fast path
        [canvas_rows.stop - canvas_rows.start, canvas_columns.stop - canvas_columns.start],
        interpolation=InterpolationMode.BILINEAR,
        antialias=True,
    )
    canvas = torch.tensor(fill, dtype=torch.uint8).repeat(height, width, 1)
    canvas[canvas_rows, canvas_columns] = resized.permute(1, 2, 0)
    return canvas.permute(2, 0, 1)


def normalise(images: UInt8[Tensor, "*b 3 h w"], input_format: InputFormat) -> Float32[Tensor, "*b 3 h w"]:
    """Bytes to what the network reads: ``(x / 255 - mean) / std``."""
    pixels = images.float() / 255
    if any(input_format.mean):
        pixels = pixels - pixels.new_tensor(input_format.mean)[:, None, None]
    if any(value != 1 for value in input_format.std):
        pixels = pixels / pixels.new_tensor(input_format.std)[:, None, None]
    return pixels


@contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    """An open picture; whatever goes wrong while it is used becomes one line that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no picture {path}") from error
    except UnidentifiedImageError as error:
        empty = Path(path).stat().st_size == 0
        what = "it is empty" if empty else "it is not an image file, or its beginning is damaged"
        raise ValueError(f"{path} cannot be read as a picture: {what}") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise what they like, SyntaxError included
        raise ValueError(f"{path} cannot be read as a picture: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block does not make the picture unreadable: it says nothing, as if absent
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
        return _three_channels(_grey_16_to_8(np.asarray(image)))
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("RGB"))


def _grey_16_to_8(grey: npt.NDArray[Any]) -> UInt8[np.ndarray, "h w"]:
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("its pixels do not fit into 16 bits; save it with 8 or 16 bits")
    return np.asarray((grey.astype(np.uint32) * 255 + 32767) // 65535, dtype=np.uint8)


def _channels_last(image: npt.NDArray[Any] | Tensor) -> npt.NDArray[Any]:
    """An array (h, w) or (h, w, c), from such an array or from a tensor (h, w) or (c, h, w)."""
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
            "undo its normalisation, or pass bytes"
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


def _overlap(start: float, stop: float, size: int, canvas_size: int) -> tuple[slice, slice]:
    """Where one side of a window meets a picture's side of ``size``: in the picture, and on the canvas."""
    if not (start < stop and start < size and stop > 0):
        raise ValueError(f"the window {start:g} to {stop:g} has no part of a picture's side of {size} pixels")
    first = min(int(max(start, 0.0) + 0.5), size - 1)
    last = max(int(min(stop, size) + 0.5), first + 1)
    scale = canvas_size / (stop - start)
    canvas_first = min(max(int((first - start) * scale + 0.5), 0), canvas_size - 1)
    canvas_last = min(max(int((last - start) * scale + 0.5), canvas_first + 1), canvas_size)
    return slice(first, last), slice(canvas_first, canvas_last)
