"""Sources of images: each kind lists the same images, and damaged ones are one line."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

import boxwright
from boxwright.sources.image_list import ImageList, collect_images
from boxwright.sources.listing import list_source
from boxwright.sources.source_image import SourceImage
from boxwright_runtime.images import as_rgb
from passing_detector import gray, png
from stand_in_export import write_stand_in

FILES = {"a.png": png(gray(0.2, 20, 30)), "deep/b.png": png(gray(0.6, 50, 31)), "deep/c.png": png(gray(0.9, 8, 64))}


def quiet(line: str) -> None:
    raise AssertionError(line)


def listed(text: str | Path, note: Callable[[str], None] = quiet) -> list[SourceImage]:
    return list(list_source(str(text), note))


def pixels(images: list[SourceImage]) -> list[np.ndarray]:
    return [as_rgb(one.source) for one in images]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "images"


def write_zip(path: Path | io.BytesIO, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is text
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def bucket(folder: Path) -> str:
    """The same files in memory, by address."""
    address = f"memory://{uuid.uuid4().hex}"
    for name in FILES:
        with fsspec.open(f"{address}/{name}", "wb") as file:
            file.write((folder / name).read_bytes())
    return address


@pytest.mark.parametrize(
    "kind", ["folder", "file", "memory", "stored.zip", "small.zip", "x.tar", "x.txt", "x.jsonl", "x.parquet"]
)
def test_the_same_images_from_every_kind_of_source(folder: Path, bucket: str, kind: str) -> None:
    path = folder / kind
    sources = {"folder": folder, "file": f"file://{folder}", "memory": bucket}
    names = list(FILES)
    if kind.endswith(".zip"):
        write_zip(path, FILES, zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED)
    elif kind.endswith(".tar"):
        # Beside each image of WebDataset there are other files.
        write_tar(path, {f"./{name}": content for name, content in FILES.items()} | {"a.cls": b"1"})
    elif kind.endswith(".txt"):
        path.write_text("\n\n".join(names))
    elif kind.endswith(".jsonl"):
        path.write_text("".join(json.dumps({"path": name, "id": 7}) + "\n" for name in names))
    elif kind.endswith(".parquet"):
        parquet.write_table(pyarrow.table({"file_name": names, "label": [1, 2, 3]}), path)
    images = listed(sources.get(kind, path), quiet if kind not in sources else lambda _: None)
    assert [one.name for one in images] == names
    for ours, name in zip(pixels(images), names, strict=True):
        assert np.array_equal(ours, as_rgb(folder / name))
    assert [one.id for one in images] == ["7" if kind == "x.jsonl" else ""] * 3


def test_globs_and_archives_by_address(bucket: str) -> None:
    assert [one.location.rpartition("/")[2] for one in listed(f"{bucket}/deep/*.png")] == ["b.png", "c.png"]
    write_zip(content := io.BytesIO(), FILES)
    with fsspec.open(f"{bucket}/all.zip", "wb") as file:
        file.write(content.getvalue())
    with fsspec.open(f"{bucket}/list.jsonl", "wb") as file:
        file.write(b'{"path": "deep/c.png", "id": "x"}\n')
    images = listed(f"{bucket}/*.zip")
    assert [one.name for one in images] == list(FILES)
    assert np.array_equal(pixels(images)[1], as_rgb(Image.open(io.BytesIO(FILES["deep/b.png"]))))
    (one,) = listed(f"{bucket}/list.jsonl")
    assert (one.name, one.id) == ("deep/c.png", "x")
    assert pixels([one])[0].shape == (8, 64, 3)


def test_absolute_paths_and_addresses_in_lists(folder: Path, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        f"{folder}/a.png\nimages/deep/b.png\n{bucket}/a.png\nfile://{folder}/deep/c.png\n"
    )
    assert [one.shape[0] for one in pixels(listed(tmp_path / "list.txt"))] == [20, 50, 20, 8]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"no zip", "x.zip cannot be read as an archive: "),
        ("x.tar", b"no tar" * 300, "x.tar cannot be read as an archive: "),
        ("x.tar", b"", "x.tar cannot be read as an archive: "),
        ("x.jsonl", b'{"path": "a.png"}\n{"name": "b.png"}\n', "x.jsonl, entry 2: no path"),
        ("x.jsonl", b'{"path": 3}\n', "x.jsonl, entry 1: the path of an image is text, not 3"),
        ("x.jsonl", b'{"path": "a.png", "id": [1]}', "entry 1: the id of an image is a whole number or text"),
        ("x.jsonl", b'["a.png"]', "entry 1: an object with path is meant, not list"),
        ("x.jsonl", b"a.png\n", "entry 1: no JSON"),
        ("x.jsonl", b"\n", "x.jsonl: no images in this list"),
        ("x.txt", b"\n\n", "x.txt: no images in this list"),
        ("x.parquet", b"PAR1 no", "x.parquet, entry 1: no Parquet"),
    ],
)
def test_damaged_archives_and_lists(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        listed(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_table_without_paths(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"url": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet, entry 1: no column path"):
        listed(tmp_path / "x.parquet")


def test_a_tar_file_that_is_cut_off(tmp_path: Path) -> None:
    """At a header, reading it would simply end, and the rest be lost in silence."""
    write_tar(tmp_path / "x.tar", FILES)
    whole = (tmp_path / "x.tar").read_bytes()
    with tarfile.open(tmp_path / "x.tar") as archive:
        header = archive.getmembers()[2].offset
    for size in (header, header + 100, header + 600):
        (tmp_path / "x.tar").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"x\.tar cannot be read as an archive"):
            listed(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_an_archive_that_is_compressed_as_a_whole(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / name, FILES, "w:gz")
    with pytest.raises(ValueError, match="compressed as a whole; unpack it"):
        listed(tmp_path / name)


def test_an_archive_without_images(tmp_path: Path) -> None:
    write_zip(tmp_path / "x.zip", {"read.me": b"", "__MACOSX/a.png": b"", ".b.png": b""})
    with pytest.raises(ValueError, match=r"no images in this archive; 1 files left out .*: \.me 1"):
        listed(tmp_path / "x.zip")


def test_damage_in_an_archive_is_of_one_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    write_zip(tmp_path / "x.zip", {"a.png": png(noise), "b.png": FILES["a.png"], "c.png": b"x" * 99})
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[1000] ^= 255
    (tmp_path / "x.zip").write_bytes(content)
    model = write_stand_in(tmp_path / "m.onnx")
    result = boxwright.predict(model, tmp_path / "x.zip", on_error="skip")
    assert list(result.detections) == ["b.png"]
    first, third = (one.reason for one in result.skipped)
    assert f"{tmp_path}/x.zip/a.png cannot be read as an image: the archive is damaged here" in first
    assert "x.zip/c.png cannot be read as an image: it is not an image file" in third


def test_a_member_that_inflates_to_more_than_the_directory_says(tmp_path: Path) -> None:
    write_zip(tmp_path / "x.zip", {"a.png": bytes(10**6)})
    content = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(content.replace((10**6).to_bytes(4, "little"), (99).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="the archive is damaged here"):
        pixels(listed(tmp_path / "x.zip"))


def test_an_encrypted_member(tmp_path: Path) -> None:
    write_zip(tmp_path / "x.zip", FILES)
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[6] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match="stored by an encrypting method"):
        pixels(listed(tmp_path / "x.zip"))


def test_drawings_stay_in_their_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"../../up.png": FILES["a.png"], "/root.bmp": FILES["a.png"]})
    out = tmp_path / "deep" / "out"
    result = boxwright.predict(write_stand_in(tmp_path / "m.onnx"), tmp_path / "x.tar", out=out)
    assert list(result.detections) == ["../../up.png", "/root.bmp"]
    assert sorted(path.relative_to(out).as_posix() for path in tmp_path.rglob("*.png")) == ["root.png", "up.png"]


@pytest.mark.parametrize("address", ["memory://nothing/here", "nosuch://x/y.png", "memory://none*/x"])
def test_addresses_of_nothing(address: str) -> None:
    with pytest.raises((FileNotFoundError, ValueError), match=address.partition("*")[0]) as caught:
        listed(address)
    assert "\n" not in str(caught.value)


def test_chained_addresses_are_refused() -> None:
    with pytest.raises(ValueError, match="give that of the archive itself"):
        listed("zip://*.png::memory://x.zip")


def test_addresses_need_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ValueError, match=r"s3://b/x\.png needs fsspec: pip install 'boxwright\[volume\]'"):
        listed("s3://b/x.png")


def test_an_address_that_its_storage_refuses_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it says why; storage services raise errors that are no ``OSError``."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no credentials")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.info", refuse)
    (tmp_path / "list.txt").write_text("memory://refused/a.png")
    assert len(collect_images([str(tmp_path / "list.txt")], print).images) == 1


def test_texts_beside_images_are_no_lists_in_a_glob(folder: Path) -> None:
    (folder / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert [one.name for one in listed(folder / "a.*")] == ["a.png", "a.txt"]


def test_each_image_once_and_names_of_its_own(folder: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(FILES["a.png"])
    texts = [str(folder), str(folder / "a.png"), str(tmp_path / "x"), str(tmp_path / "y")]
    images = collect_images(texts, quiet).images
    assert list(images.names) == [str(folder / "a.png"), "deep/b.png", "deep/c.png", *(f"{t}/a.png" for t in texts[2:])]
    part: ImageList = images[1:3]
    assert (part[0], list(part)) == (images[1], [images[1], images[2]])


def test_the_hash_of_inputs_sees_changed_files(folder: Path) -> None:
    before = collect_images([str(folder)], quiet)
    assert collect_images([str(folder)], quiet).sha256 == before.sha256
    (folder / "a.png").write_bytes(FILES["a.png"])
    assert collect_images([str(folder)], quiet).sha256 != before.sha256
    write_zip(folder.parent / "x.zip", FILES)
    packed = collect_images([str(folder.parent / "x.zip")], quiet).sha256
    write_zip(folder.parent / "x.zip", FILES | {"a.png": FILES["deep/b.png"]})
    assert collect_images([str(folder.parent / "x.zip")], quiet).sha256 != packed


def test_ids_of_a_manifest_are_unique(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"path": "a", "id": 1}\n{"path": "b", "id": "1"}\n')
    with pytest.raises(ValueError, match="several images of the manifest have the same id"):
        collect_images([str(tmp_path / "x.jsonl")], quiet)
