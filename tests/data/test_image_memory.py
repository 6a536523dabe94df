"""Facts of images are remembered outside the data set, and only for as long as they hold."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from image_files import FILES, PIXELS, png
from PIL import Image

from boxwright.data import image_check
from boxwright.data.cache_folder import cache_folder
from boxwright.data.image_check import inspect_images
from boxwright.data.image_inspection import ImageFacts, ImageFailure, inspect_image

OLD = time.time() - 1000
"""Files younger than two seconds are not remembered."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an image of each format."""
    folder = tmp_path / "images"
    for name, file in FILES.items():
        write(folder / name, file)
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded."""
    names: list[str] = []

    def inspect(path: Path) -> ImageFacts:
        names.append(path.name)
        return inspect_image(path)

    monkeypatch.setattr(image_check, "inspect_image", inspect)
    return names


def write(path: Path, content: bytes, age: float = OLD) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (age, age))


def test_nothing_is_decoded_twice(folder: Path, decoded: list[str], cache: Path) -> None:
    names = [*FILES, *FILES, "nowhere.png"]
    first = inspect_images(folder, names)
    assert sorted(decoded) == sorted([*FILES, "nowhere.png"])
    decoded.clear()
    calls: list[tuple[int, int]] = []
    assert inspect_images(folder, names, progress=lambda *done: calls.append(done)) == first
    assert decoded == ["nowhere.png"]
    assert calls == [(len(names) - 1, len(names)), (len(names), len(names))]
    assert [one.name for one in cache.iterdir()] == ["images-2.sqlite"]
    assert sorted(one.name for one in folder.iterdir()) == sorted(FILES)


def test_every_fact_is_remembered(folder: Path, decoded: list[str]) -> None:
    write(folder / "cut.jpg", FILES["jpeg"][:-300])
    write(folder / "deep.png", png(PIXELS.astype(np.uint16) * 4))
    write(folder / "blank.png", png(np.full((9, 9, 1), 7, np.uint8)))
    names = ["cut.jpg", "deep.png", "blank.png", *FILES]
    first, again = inspect_images(folder, names), inspect_images(folder, names)
    assert len(decoded) == len(names)
    assert first == again
    assert [type(value) for value in first[0]] == [type(value) for value in again[0]]
    assert first[0].findings[0][0] == "image_cut"
    assert first[2].dhash is None


def test_headers_are_taken_from_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = inspect_images(folder, list(FILES))
    monkeypatch.setattr(image_check, "image_size", None)
    assert inspect_images(folder, list(FILES), decode=False) == first


def test_headers_alone_are_no_check(folder: Path, decoded: list[str]) -> None:
    write(folder / "bad.png", FILES["png"][:-200])
    (facts,) = inspect_images(folder, ["bad.png"], decode=False)
    assert isinstance(facts, ImageFacts)
    (failure,) = inspect_images(folder, ["bad.png"])
    assert isinstance(failure, ImageFailure)
    assert decoded == ["bad.png"]


def test_a_changed_file_is_decoded_again(folder: Path, decoded: list[str]) -> None:
    def check(content: bytes, age: float) -> None:
        decoded.clear()
        write(folder / "bmp", content, age)
        (facts,) = inspect_images(folder, ["bmp"])
        assert decoded == ["bmp"]
        assert facts == inspect_image(folder / "bmp")

    check(FILES["png"], OLD)  # another size
    check(FILES["png"], OLD + 1)  # another time
    time.sleep(0.02)
    changed = bytearray(FILES["bmp"])
    check(bytes(changed), OLD)
    changed[600] ^= 255
    time.sleep(0.02)
    check(bytes(changed), OLD)  # the same size and time, set back


def test_a_file_that_was_just_written_is_not_remembered(folder: Path, decoded: list[str]) -> None:
    """It may be written again within the same tick of the clock."""
    write(folder / "new.png", FILES["png"], time.time())
    inspect_images(folder, ["new.png"])
    inspect_images(folder, ["new.png"])
    assert decoded == ["new.png", "new.png"]


def test_folders_do_not_mix(tmp_path: Path, folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    write(other / "png", png(PIXELS[:20]))
    (facts,), (other_facts,) = inspect_images(folder, ["png"]), inspect_images(other, ["png"])
    assert (facts.size, other_facts.size) == ((72, 96), (20, 96))
    monkeypatch.chdir(tmp_path)
    assert inspect_images(Path("other"), ["png"]) == [other_facts]
    assert inspect_images(tmp_path, ["other/png"]) == [other_facts]
    assert decoded == ["png", "png", "png"]


@pytest.mark.parametrize("damage", ["garbage", "cut", "other tables", "folder", "file in its way", "values"])
def test_a_damaged_memory_is_left_out_with_a_note(folder: Path, cache: Path, damage: str) -> None:
    expected = inspect_images(folder, list(FILES))
    file = cache / "images-2.sqlite"
    content = file.read_bytes()
    file.unlink()
    if damage == "garbage":
        file.write_bytes(np.random.default_rng(0).bytes(5000))
    elif damage == "cut":
        file.write_bytes(content[:3000] + bytes(600))
    elif damage == "other tables":
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE folders (something TEXT)")
    elif damage == "folder":
        file.mkdir()
    elif damage == "file in its way":
        cache.rmdir()
        cache.write_text("not a folder")
    else:
        file.write_bytes(content)
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE images SET findings = 'no JSON'")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert inspect_images(folder, list(FILES)) == expected
        assert inspect_images(folder, list(FILES)) == expected
    lines = {str(one.message) for one in caught}
    assert lines
    assert all("memory of checked images is left out" in line and line.isprintable() for line in lines)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(folder: Path, cache: Path) -> None:
    cache.mkdir(mode=0o500)
    with pytest.warns(UserWarning, match="memory of checked images is left out"):
        inspect_images(folder, list(FILES))


def sum_heights(folder: Path, names: list[str]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return sum(one.height for one in inspect_images(folder, names) if isinstance(one, ImageFacts))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here")
def test_several_processes_remember_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "many"
    for index in range(12):
        write(folder / f"{index}.png", png(np.full((8, 8, 3), index, np.uint8)))
    monkeypatch.setattr(image_check, "_SECONDS_BETWEEN_WRITES", 0.0)
    names = [f"{index}.png" for index in range(12)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        heights = pool.starmap(sum_heights, [(folder, names)] * 4, chunksize=1)
    assert heights == [96] * 4
    with sqlite3.connect(cache_folder() / "images-2.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM images").fetchone() == (12,)


def test_a_file_whose_tables_another_process_is_about_to_make(tmp_path: Path, decoded: list[str]) -> None:
    """It remembers nothing yet, and is none that is damaged: warnings are errors here."""
    write(tmp_path / "0.png", png(PIXELS[:4, :4]))
    cache_folder().mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(cache_folder() / "images-2.sqlite") as connection:
        connection.execute("CREATE TABLE folders (id INTEGER PRIMARY KEY, path TEXT UNIQUE)")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inspect_images(tmp_path, ["0.png"])
    assert len(decoded) == 1


def test_thousands_of_names_are_looked_up_at_once(tmp_path: Path, decoded: list[str]) -> None:
    folder = tmp_path / "many"
    write(folder / "0.png", png(PIXELS[:4, :4]))
    for index in range(1, 600):
        os.link(folder / "0.png", folder / f"{index}.png")
    names = [f"{index}.png" for index in range(600)]
    first = inspect_images(folder, names)
    assert len(decoded) == 600
    started = time.process_time()
    assert inspect_images(folder, names) == first
    assert time.process_time() - started < 1
    assert len(decoded) == 600


def test_the_folder_is_named_or_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXWRIGHT_CACHE", "~/here")
    assert cache_folder() == Path.home() / "here"
    monkeypatch.setenv("BOXWRIGHT_CACHE", "")
    assert cache_folder() == Path.home() / ".cache" / "boxwright"


def test_images_of_one_color_have_no_hash(tmp_path: Path) -> None:
    Image.new("RGB", (50, 50), (9, 200, 9)).save(tmp_path / "a.png")
    assert inspect_image(tmp_path / "a.png").dhash is None
