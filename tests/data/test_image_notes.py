"""Notes about whole images, their turn and their channels; and decoders, which print nothing."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from image_files import FILES, PIXELS, encode
from PIL import ExifTags, Image, ImageCms

from boxwright.data.image_check import inspect_images
from boxwright.data.image_inspection import IMAGE_TURNED, ImageFacts, image_size, inspect_image
from boxwright.data.mask_file import MaskFile
from boxwright_runtime.images import as_rgb, read_image
from boxwright_runtime.quiet_decoding import quiet_decoding


def turned(orientation: int, file_format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(file_format, exif=exif)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 6, 8, 9, 255])
def test_only_turned_images_are_called_turned(tmp_path: Path, orientation: int, file_format: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(turned(orientation, file_format))
    facts = inspect_image(path)
    is_turned = 2 <= orientation <= 8
    assert [kind for kind, _ in facts.findings] == [IMAGE_TURNED.name] * is_turned
    assert facts.orientation == (orientation if is_turned else 1)
    assert facts.size == read_image(path).shape[:2] == ((96, 72) if orientation in (6, 8) else (72, 96))


def test_images_of_lightness_a_and_b_have_colors(tmp_path: Path) -> None:
    rgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(rgb, lab, "RGB", "LAB")
    image = ImageCms.applyTransform(Image.fromarray(PIXELS), transform)
    assert image is not None
    path = tmp_path / "lab.tiff"
    image.save(path)
    facts = inspect_image(path)
    assert (facts.channels, facts.findings) == (3, ())
    assert facts.dhash is not None
    for pixels in (read_image(path), as_rgb(image)):
        assert np.abs(pixels.astype(np.int16) - PIXELS).mean() < 2


def damaged_exif() -> bytes:
    """Return a JPEG whose EXIF block ends amid a tag."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "somebody's camera, of long name"
    whole = encode("JPEG", exif=exif)
    start = whole.index(b"Exif\0\0")
    return whole.replace(whole[start + 6 : start + 18], whole[start + 6 : start + 14] + b"\xff\x00\x00\x00")


def damaged_tiff() -> bytes:
    whole = bytearray(FILES["deflate.tiff"])
    whole[len(whole) // 2] ^= 4
    return bytes(whole)


def read_by_pillow(path: Path) -> None:
    with Image.open(path) as image:
        image.getexif()
        image.load()


@pytest.mark.parametrize("file", [damaged_tiff(), damaged_exif()], ids=["tiff", "exif"])
def test_decoders_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str], file: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(file)
    (tmp_path / "mask.png").write_bytes(file)
    with warnings.catch_warnings(record=True) as caught, suppress(OSError):
        warnings.simplefilter("always")
        opened = Image.open(path)
        read_by_pillow(path)
    if not (caught or capfd.readouterr().err):
        pytest.skip("this Pillow prints nothing")
    calls: tuple[Callable[[], object], ...] = (
        *(partial(inspect_image, path), partial(read_image, path), partial(image_size, path), partial(as_rgb, opened)),
        lambda: MaskFile("mask.png", (tmp_path,), 72, 96).run_lengths,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in calls:
            with suppress(ValueError):
                call()
        results = inspect_images(tmp_path, ["image"] * 3)
    assert capfd.readouterr().err == ""
    assert all(isinstance(one, ImageFacts) == (file == damaged_exif()) for one in results)


def test_warnings_are_as_before_in_the_end() -> None:
    """Also where threads decode at once, and where somebody sets filters meanwhile."""
    before = list(warnings.filters)
    begun, done = threading.Barrier(3), threading.Barrier(3)

    def decode() -> None:
        with quiet_decoding(), quiet_decoding():
            begun.wait()
            done.wait()

    threads = [threading.Thread(target=decode) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    assert len(warnings.filters) == len(before) + 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("of somebody else", stacklevel=1)
        done.wait()
        for thread in threads:
            thread.join()
    assert len(caught) == 1
    assert list(warnings.filters) == before
