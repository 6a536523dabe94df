"""Files of every kind where an image should be: one line each, and nothing waits."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import FILES, PIXELS, chunk, encode, png
from PIL import Image

from boxwright.data.image_check import inspect_images, require_readable
from boxwright.data.image_inspection import IMAGE_MISSING, IMAGE_UNREADABLE, ImageFacts, ImageFailure
from boxwright_runtime.images import read_image


def bomb() -> bytes:
    return png(PIXELS).replace(
        chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 72, 8, 2, 0, 0, 0)),
        chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images and everything else that may be found among them."""
    (tmp_path / "whole.jpg").write_bytes(FILES["jpeg"])
    (tmp_path / "link.jpg").symlink_to("whole.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "pipe_link.jpg").symlink_to("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket.jpg"))
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "bomb.png").write_bytes(bomb())
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "floats.tif")
    return tmp_path


REASONS = {
    "empty.jpg": "it is empty",
    "folder.jpg": "it is a folder, not a file",
    "pipe.jpg": "it is a pipe, not a file",
    "pipe_link.jpg": "it is a pipe, not a file",
    "socket.jpg": "no such device or address",
    "device.jpg": "it is a device, not a file",
    "dangling.jpg": "there is no image .*: it is a link to nowhere.jpg",
    "loop.jpg": "too many levels of symbolic links",
    "bomb.png": "exceeds limit",
    "text.png": "not an image file",
    "gone.jpg": "there is no image",
    "x" * 5000 + ".jpg": r"5,\d\d\d characters.*file name too long",
    "lone \ud800.jpg": r"lone \\ud800.jpg.*no file has such a name",
    "null \0.jpg": r"null \\x00.jpg",
    "two\nlines.jpg": r"there is no image .*two\\nlines.jpg",
    "whole.jpg/inside.jpg": "not a directory",
}


@pytest.mark.parametrize("decode", [False, True])
def test_each_is_named_in_one_line(folder: Path, decode: bool) -> None:
    names = ["whole.jpg", "link.jpg", *REASONS, "whole.jpg"]
    results = inspect_images(folder, names, decode=decode)
    assert [one.size for one in results if isinstance(one, ImageFacts)] == [(72, 96)] * 3
    failures = [one for one in results if isinstance(one, ImageFailure)]
    assert [one.name for one in failures] == list(REASONS)
    for one in failures:
        with pytest.raises((ValueError, FileNotFoundError), match=f"(?i){REASONS[one.name]}") as caught:
            read_image(folder / one.name)
        assert str(caught.value) == one.reason
        assert one.reason.isprintable()
        assert len(one.reason) < 600
        assert one.finding().kind is (IMAGE_MISSING if one.is_missing else IMAGE_UNREADABLE)
    with pytest.raises(ValueError, match=r"of 19 images in .* missing: dangling.jpg.* unreadable: empty.jpg") as caught:
        require_readable(folder, results)
    assert str(caught.value).isprintable()


def test_headers_of_every_format_agree_with_pillow(tmp_path: Path) -> None:
    for name, file in FILES.items():
        (tmp_path / name).write_bytes(file)
    facts = inspect_images(tmp_path, list(FILES), decode=False)
    assert facts == [ImageFacts(72, 96)] * len(FILES)


@pytest.mark.parametrize("where", ["before", "behind"])
def test_the_orientation_of_a_png_counts_wherever_it_is(tmp_path: Path, where: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turn = chunk(b"eXIf", exif.tobytes()[6:])
    file = png(PIXELS, turn) if where == "before" else png(PIXELS)[:-12] + turn + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(file)
    for decode in (False, True):
        (facts,) = inspect_images(tmp_path, ["a.png"], decode=decode)
        assert isinstance(facts, ImageFacts)
        assert facts.size == read_image(tmp_path / "a.png").shape[:2] == (96, 72)


def test_the_orientation_in_xmp_counts_in_headers_too(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode("JPEG", xmp=b'<x xmlns:tiff="t"><y tiff:Orientation="6"/></x>'))
    sizes = [inspect_images(tmp_path, ["a.jpg"], decode=decode)[0] for decode in (False, True)]
    assert sizes[0][:2] == sizes[1][:2] == read_image(tmp_path / "a.jpg").shape[:2]
