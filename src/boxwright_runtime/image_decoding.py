"""The bytes of an image file, decoded: the one way from any format to upright pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from boxwright_runtime import jpeg_markers
from boxwright_runtime.png_chunks import SIGNATURE, mend_png
from boxwright_runtime.sample_range import scale_samples, wide_samples

if TYPE_CHECKING:
    from jaxtyping import UInt8

_FORMATS_WITH_FRAMES = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")

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

_BACK = {**_UPRIGHT, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""Operations that undo these."""

_SIDES_SWAP = (5, 6, 7, 8)

_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Modes of one color; L, a and b are one of three, whose first band has the name of gray."""


class DecodedImage(NamedTuple):
    """An image of a file, loaded, upright and with 8 bits.

    Args:
        image: its pixels, in any mode of 8 bits or less.
        size: (height, width) of the whole image, upright; ``image`` is smaller where it is a draft.
        depth: bits of the samples that were scaled to 8; 8 where they had not more.
        is_wide: the file has more than 8 bits for each sample.
        channels: 1 for gray, else 3; transparency is not counted.
        orientation: of EXIF, 1 to 8; 1 for none.
        is_animated: it has more frames or pages than this first one.
        cut: the last part of the file is missing, and of the image it may be gray.
        damaged_chunks: names of the damaged parts without pixels that were left out.
    """

    image: Image.Image
    size: tuple[int, int]
    depth: int
    is_wide: bool
    channels: int
    orientation: int
    is_animated: bool
    cut: bool
    damaged_chunks: tuple[str, ...]


def decode_image(data: bytes, draft: tuple[int, int] | None = None) -> DecodedImage:
    """Decode the bytes of an image file as a whole; of an animation, the first frame.

    A JPEG whose end is missing is decoded as far as it goes; the rest is gray. A PNG is decoded only where the
    checksums of all parts that pixels depend on are right.

    Args:
        data: the file.
        draft: (width, height) that suffice; a JPEG is then made smaller and gray, 4 to 10 times faster. All its bytes
            are read still.

    Raises:
        Exception: Pillow raises anything on damaged files; see ``image_errors``.
    """
    if not data:
        raise ValueError("it is empty")
    damaged: list[str] = []
    if data.startswith(SIGNATURE):
        data, damaged = mend_png(data)
    if not data.startswith(jpeg_markers.START):
        return _decode(data, draft)._replace(damaged_chunks=tuple(damaged))
    try:
        decoded = _decode(data, draft)
    except OSError as error:
        if "truncated" not in str(error):
            raise
        return _decode_cut(data)
    return decoded._replace(cut=not jpeg_markers.has_end(data))


def as_stored(decoded: DecodedImage) -> Image.Image:
    """Return the pixels in the order in which their file has them, before they were turned upright."""
    back = _BACK.get(decoded.orientation)
    return decoded.image if back is None else decoded.image.transpose(back)


def gray_rows(image: Image.Image) -> float:
    """Return the fraction of an image's rows, from the bottom, that are all of the gray that JPEG fills in.

    Args:
        image: as it is stored.
    """
    # Of CMYK, the gray may be inverted: 127.
    pixels = np.asarray(image, dtype=np.int16).reshape(image.height, -1)
    varied = np.asarray((np.abs(pixels - 128) > (image.mode == "CMYK")).any(axis=1))
    return float(varied[::-1].argmax() / len(varied)) if varied.any() else 1.0


def opaque(image: Image.Image) -> Image.Image:
    """Lay transparent pixels on black, like the padding around an image."""
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image


def rgb_pixels(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Convert a loaded image of 8 bits to RGB."""
    image = opaque(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 where it has none, or a number without meaning."""
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block does not make the image unreadable: it says nothing, as if absent
        return 1
    return orientation if orientation in _UPRIGHT else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) of an opened image after its EXIF rotation."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow turns TIFF by itself, and some versions report the turned size before they do.
        width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    return (width, height) if orientation_of(image) in _SIDES_SWAP else (height, width)


def load_upright(image: Image.Image, data: bytes | None = None) -> DecodedImage:
    """Load an opened image, scale samples of more than 8 bits to 8, and turn it upright.

    Args:
        image: opened or made in memory.
        data: its file, for samples of 16 bits and several channels, of which Pillow by itself gives 8 bits.
    """
    # PNG may have its EXIF behind the pixels, and looks there by loading; TIFF forgets its orientation by loading.
    orientation = 1 if isinstance(image, PngImagePlugin.PngImageFile) else orientation_of(image)
    is_animated = image.format in _FORMATS_WITH_FRAMES and _has_more_frames(image)
    samples = None if data is None else wide_samples(image, data)
    image.load()
    is_gray = image.mode in _GRAY_MODES or (samples is not None and samples.shape[2] == 2)
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats of unknown range; save it with 8 or 16 bits")
    turn = _UPRIGHT.get(orientation_of(image))
    if image.mode == "I" or image.mode.startswith("I;16"):
        samples = np.asarray(image)
    pixels, depth = image, 8
    if samples is not None:
        scaled, depth = scale_samples(samples)
        pixels = Image.fromarray(scaled)
    if pixels.mode == "LAB":
        pixels = pixels.convert("RGB")  # the one conversion of it that there is
    if turn is not None:
        pixels = pixels.transpose(turn)
    return DecodedImage(
        image=pixels,
        size=(pixels.height, pixels.width),
        depth=depth,
        is_wide=samples is not None,
        channels=1 if is_gray else 3,
        orientation=max(orientation, orientation_of(image)),
        is_animated=is_animated,
        cut=False,
        damaged_chunks=(),
    )


def _decode(data: bytes, draft: tuple[int, int] | None) -> DecodedImage:
    with Image.open(io.BytesIO(data)) as image:
        if draft is None or not isinstance(image, JpegImagePlugin.JpegImageFile):
            return load_upright(image, data)
        size, channels = upright_size(image), len(image.getbands())
        image.draft("L", draft)
        return load_upright(image)._replace(size=size, channels=1 if channels == 1 else 3)


def _decode_cut(data: bytes) -> DecodedImage:
    """Decode a JPEG without its end: the decoder fills what is missing with gray, once an end follows."""
    for ended in jpeg_markers.endings(data):
        try:
            decoded = _decode(ended, None)
        except OSError:
            continue
        if gray_rows(decoded.image) < 1:
            return decoded._replace(cut=True)
    raise ValueError("image file is truncated before its first pixels")


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # what follows the first frame is damaged, and not read
        return True
