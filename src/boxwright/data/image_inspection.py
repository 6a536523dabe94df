"""Facts of an image file: its size, its hashes, and what is wrong with it or worth knowing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.image_header import header_size
from boxwright_runtime import jpeg_markers
from boxwright_runtime.image_decoding import DecodedImage, as_stored, decode_image, gray_rows, opaque, upright_size
from boxwright_runtime.image_file import image_errors, load_file, open_file
from boxwright_runtime.png_chunks import SIGNATURE, matches_checksum

IMAGE_MISSING = FindingKind("image_missing", "error", "images are not there", "restore the files or take them out")
IMAGE_UNREADABLE = FindingKind(
    "image_unreadable", "error", "images cannot be read", "restore the files or take them out of the data set"
)
IMAGE_CUT = FindingKind(
    "image_cut", "warning", "JPEGs without their end used as far as they go, the rest gray", "restore the files"
)
IMAGE_CHECKSUM = FindingKind(
    "image_checksum", "warning", "images whose pixels do not have the checksum of the file", "look at them"
)
IMAGE_RANGE = FindingKind(
    "image_range", "warning", "images of 16 bits use fewer, and are scaled to 8 bits by the range that they use"
)
IMAGE_TEXT_DAMAGED = FindingKind("image_text_damaged", "note", "images with damaged text; their pixels are whole")
IMAGE_TURNED = FindingKind("image_turned", "note", "images are turned upright by their EXIF orientation")
IMAGE_GRAY = FindingKind("image_gray", "note", "images of one channel are used as gray RGB")
IMAGE_TRANSPARENT = FindingKind("image_transparent", "note", "images with transparent pixels are laid on black")
IMAGE_ANIMATED = FindingKind("image_animated", "note", "images with several frames or pages; the first is used")

IMAGE_KINDS = {
    kind.name: kind
    for kind in (
        *(IMAGE_MISSING, IMAGE_UNREADABLE, IMAGE_CUT, IMAGE_CHECKSUM, IMAGE_RANGE),
        *(IMAGE_TEXT_DAMAGED, IMAGE_TURNED, IMAGE_GRAY, IMAGE_TRANSPARENT, IMAGE_ANIMATED),
    )
}
"""Kinds of findings about image files, by name."""

HASH_SIDE = 12
"""Rows, and bits of each row, of a difference hash."""

NEAR_HASHES = 0.15
"""Largest distance of difference hashes of nearly the same image."""

_DRAFT = (4 * HASH_SIDE, 4 * HASH_SIDE)
_LEAST_CONTRAST = 8
_MORE_PIXELS = bytes(range(1, 255)) * 4
"""Bytes without markers that any tables of a JPEG decode to pixels, of which not all are gray."""


class ImageFacts(NamedTuple):
    """Facts of an image that can be read.

    Args:
        height: after its EXIF rotation, in pixels.
        width: after its EXIF rotation, in pixels.
        digest: hash of the file's bytes; None where only the header was read.
        dhash: difference hash of 144 bits, see ``difference_hash``; None where only the header was read, and of an
            image that is almost of one color.
        channels: 1 for gray, else 3.
        depth: bits of the samples; of 16-bit files, those that are used: 8, 10, 12, 14 or 16.
        orientation: of EXIF, 1 to 8.
        findings: name of the kind and detail of everything that was found.
    """

    height: int
    width: int
    digest: bytes | None = None
    dhash: bytes | None = None
    channels: int = 3
    depth: int = 8
    orientation: int = 1
    findings: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def name_findings(self, name: str) -> list[Finding]:
        """List the findings of this image under its name."""
        return [Finding(IMAGE_KINDS[kind], name, detail) for kind, detail in self.findings]


class ImageFailure(NamedTuple):
    """An image that cannot be read.

    Args:
        name: of the image in its folder.
        is_missing: there is no such file.
        reason: one line that names the file.
    """

    name: str
    is_missing: bool
    reason: str

    def finding(self) -> Finding:
        """Return the finding about this image."""
        return Finding(IMAGE_MISSING if self.is_missing else IMAGE_UNREADABLE, self.name, self.reason)


def inspect_image(path: Path | str) -> ImageFacts:
    """Read a file once and decode it once: find what is wrong with it, and what tells it from others.

    Damage is found as far as the format allows it: a flipped byte of a PNG always, as all of it has checksums; in other
    formats where the structure breaks or the end is missing. Where a flipped byte among the coded pixels of another
    format decodes to other pixels, nothing in the file tells.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ``read_image`` would not read it.
    """
    with image_errors(path):
        data = load_file(path)
        decoded = decode_image(data, _DRAFT)
        return ImageFacts(
            *decoded.size,
            digest=hashlib.blake2b(data, digest_size=16).digest(),
            dhash=difference_hash(opaque(decoded.image)),
            channels=decoded.channels,
            depth=decoded.depth,
            orientation=decoded.orientation,
            findings=tuple((kind.name, detail) for kind, detail in _find(data, decoded)),
        )


def image_size(path: Path | str) -> tuple[int, int]:
    """Return (height, width) of the image in a file after its EXIF rotation; read the header only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image.
    """
    with image_errors(path), open_file(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError("it is empty")
        size = header_size(file)
        if size is not None:
            return size
        file.seek(0)
        with Image.open(file) as image:
            return upright_size(image)


def difference_hash(image: Image.Image) -> bytes | None:
    """Hash an image so that copies of other size, format or quality differ by few of its 144 bits.

    A bit says whether a cell of 12 rows of 13 is darker than the one on its right.

    Returns:
        18 bytes; None for an image of almost one color, where bits are chance.
    """
    factor = max(1, min(image.width, image.height) // (4 * HASH_SIDE))
    if factor > 1 and image.mode in ("L", "RGB"):
        image = image.reduce(factor)
    cells = np.asarray(image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR), np.int16)
    if np.ptp(cells) < _LEAST_CONTRAST:
        return None
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes()


def hash_distances(dhash: bytes, others: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Compare a difference hash with others, given as (n, 18) bytes; up to ``NEAR_HASHES`` means nearly the same image.

    Returns:
        of the bits that are set in either hash, the fraction that is not set in both. Bits that are set in none say
        little: two dark images with a few bright spots each have most of them in common.
    """
    own = np.frombuffer(dhash, np.uint8)
    different = np.unpackbits(own ^ others, axis=1).sum(axis=1)
    return np.asarray(different / np.maximum(np.unpackbits(own | others, axis=1).sum(axis=1), 1))


def _find(data: bytes, decoded: DecodedImage) -> list[tuple[FindingKind, str]]:
    findings = []
    if cut := _find_cut(data, decoded):
        findings.append((IMAGE_CUT, cut))
    if data.startswith(SIGNATURE) and not decoded.damaged_chunks and not matches_checksum(data):
        findings.append((IMAGE_CHECKSUM, ""))
    if decoded.damaged_chunks:
        findings.append((IMAGE_TEXT_DAMAGED, f"in {', '.join(decoded.damaged_chunks)}"))
    if decoded.is_wide and decoded.depth < 16:
        findings.append((IMAGE_RANGE, f"{decoded.depth} bits"))
    if decoded.orientation != 1:
        findings.append((IMAGE_TURNED, f"orientation {decoded.orientation}"))
    if decoded.channels == 1:
        findings.append((IMAGE_GRAY, ""))
    if decoded.is_animated:
        findings.append((IMAGE_ANIMATED, ""))
    if _is_transparent(decoded.image):
        findings.append((IMAGE_TRANSPARENT, ""))
    return findings


def _find_cut(data: bytes, decoded: DecodedImage) -> str:
    """Say what a JPEG lacks; nothing where it is whole."""
    if decoded.cut:
        return _describe_cut(decoded) or "its last bytes are missing"
    if not data.startswith(jpeg_markers.START):
        return ""
    if _ends_early(data, decoded):
        return _describe_cut(decoded) or "it ends before its last pixels: bytes amid it are wrong"
    return "some of its scans are missing: it is blurred" if jpeg_markers.lacks_scans(data) else ""


def _describe_cut(decoded: DecodedImage) -> str:
    """Say how much of a cut JPEG is gray; nothing where that is less than a hundredth."""
    missing = f"{gray_rows(as_stored(decoded)):.0%}"
    return "" if missing == "0%" else f"{missing} of the rows are missing"


def _ends_early(data: bytes, decoded: DecodedImage) -> bool:
    """Return True where a JPEG's end marker comes before its last pixels, which are filled with gray.

    Gray at the end may be the image's own: then more coded pixels before the end marker would change nothing.
    """
    image, end = as_stored(decoded), jpeg_markers.end_position(data)
    if end is None or gray_rows(image.crop((image.width - 1, image.height - 1, *image.size))) == 0:
        return False
    longer = decode_image(data[:end] + _MORE_PIXELS + data[end:], _DRAFT)
    return longer.image.tobytes() != decoded.image.tobytes()


def _is_transparent(image: Image.Image) -> bool:
    if "transparency" in image.info and image.mode in ("P", "L", "RGB", "1"):
        image = image.convert("RGBA")
    if not image.mode.endswith("A"):
        return False
    return bool(np.asarray(image.getchannel("A")).min() < 255)
