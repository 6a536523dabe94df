"""Every file of a folder is an image that is predicted, or is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from image_files import FILES, encode
from PIL import Image

from boxwright.data.image_check import inspect_images
from boxwright.data.image_inspection import ImageFacts
from boxwright.workflows.named_images import name_images
from boxwright_runtime.image_file import SUFFIXES
from boxwright_runtime.image_folder import list_folder
from boxwright_runtime.streaming import list_image_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image for each suffix, links of all kinds, and files that are no images."""
    folder = tmp_path / "album"
    (folder / "deep.jpg").mkdir(parents=True)
    for suffix in SUFFIXES:
        (folder / f"a{suffix.upper() if len(suffix) > 4 else suffix}").write_bytes(FILES["png"])
    (folder / "deep.jpg" / "b.png").write_bytes(FILES["png"])
    (folder / "link.jpg").symlink_to("a.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.jpg").write_bytes(FILES["jpeg"])
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked again").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    for name in ("labels.txt", "IMG_0001.HEIC", "no suffix", "notes.txt", ".hidden.jpg", "._a.jpg", "Thumbs.db"):
        (folder / name).write_text("x")
    return folder


def test_links_pipes_and_folders(folder: Path) -> None:
    listing = list_folder(folder)
    names = {path.relative_to(folder).as_posix() for path in listing.images if path.stem != "a"}
    assert names == {"deep.jpg/b.png", "link.jpg", "dangling.jpg", "linked/c.jpg", "pipe.png"}
    assert len(listing.images) == len(names) + len(SUFFIXES)
    assert listing.images == sorted(listing.images)
    assert dict(listing.others) == {".txt": 2, ".heic": 1, "": 1}
    line = "4 files left out that are no images of a known kind: .txt 2, no suffix 1, .heic 1"
    assert listing.describe_others() == line


def test_prediction_takes_every_name_and_counts_the_rest(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"4 files left out that are no images of a known kind: \.txt 2"):
        named = name_images(folder)
    assert [one.path for one in named] == list_folder(folder).images
    assert {"link.jpg", "a.jpg", "dangling.jpg", "pipe.png"} <= {one.name for one in named}


def test_globs_leave_nothing_out(folder: Path) -> None:
    named = name_images([f"{folder}/*.jpg", f"{folder}/a.jpg"])
    assert [one.name for one in named] == ["a.jpg", "dangling.jpg", "link.jpg"]


def test_a_folder_without_images_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.heic").touch()
    with pytest.raises(ValueError, match=r"no images in this folder .*; 1 files left out .*: \.heic 1"):
        list_image_files(tmp_path)


@pytest.mark.parametrize("text", ["x" * 5000, "null \0", "lone \ud800"])
def test_names_of_no_file(text: str) -> None:
    with pytest.raises(FileNotFoundError, match="no such image or folder") as caught:
        name_images(text)
    assert str(caught.value).isprintable()


def test_every_suffix_is_one_that_pillow_reads() -> None:
    Image.init()
    assert set(Image.registered_extensions()) >= SUFFIXES


def test_every_format_is_read_under_every_name_of_its_own(tmp_path: Path) -> None:
    Image.init()
    files = {"JPEG": "jpeg", "MPO": "mpo", "JPEG2000": "jp2", "PPM": "ppm"}
    names = []
    for suffix in SUFFIXES:
        kind = Image.registered_extensions()[suffix]
        names.append(f"a{suffix}")
        (tmp_path / names[-1]).write_bytes(encode("DIB") if kind == "DIB" else FILES[files.get(kind, kind.lower())])
    results = inspect_images(tmp_path, names)
    assert [one.size for one in results if isinstance(one, ImageFacts)] == [(72, 96)] * len(names)
