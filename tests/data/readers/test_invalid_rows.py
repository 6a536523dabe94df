"""Annotations that cannot be read, in every format: named, counted and left out, and all others are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from boxwright.data.findings import Finding
from boxwright.data.open import find_reader, open_data
from boxwright.data.readers import _rows
from boxwright.data.records import DetectionData
from boxwright.workflows.check import check
from boxwright.workflows.reading import read_split
from heard import Heard
from reader_examples import example_images, write_reader_example

FORMATS = ("csv", "labelme", "voc", "yolo")
"""Besides COCO, which ``tests/data/test_invalid_entries.py`` is about."""

OBJECTS = {"a.png": 2, "b.png": 0, "c.png": 3}
"""Objects of the images of the example."""

Edit = Callable[[str], str]


def with_example(tmp_path: Path, name: str) -> Path:
    for split in ("train", "val"):
        write_reader_example(name, tmp_path / "set", split, example_images("detection", split))
    return tmp_path / "set"


def edit(folder: Path, pattern: str, change: Edit) -> Path:
    (file,) = folder.glob(pattern)
    before = file.read_text()
    file.write_text(change(before))
    assert file.read_text() != before
    return file


def replaced(old: str, new: str) -> Edit:
    return lambda text: re.sub(old, new, text, count=1)


def listed(data: DetectionData) -> dict[str, int]:
    return {record.path.name: len(record.labels) for record in data.records}


def errors(data: DetectionData) -> list[Finding]:
    return [finding for finding in data.findings if finding.kind.severity == "error"]


def dropped(folder: Path, split: str = "train") -> DetectionData:
    return read_split(folder, split, drop_unreadable_images=True, observer=Heard())


ENTRIES: list[tuple[str, str, Edit, str]] = [
    ("csv", "*train*", replaced(r"(?m)^(c\.png,.*),\d+$", r"\1,x"), r"c\.png: line \d: coordinates must be four"),
    ("labelme", "train/c.json", replaced(r"\[\s*4(\.0)?,", '["x",'), r"c\.json: shape 1: its points must be pairs"),
    ("voc", "**/train/c.xml", replaced(r"<xmin>4", "<xmin>four"), r"c\.xml: object 1: <xmin> must be a finite number"),
    ("yolo", "**/train/c.txt", replaced(r"^(\d+) \S+", r"\1 x"), r"c\.txt: line 1: 'x' is no finite number"),
    ("yolo", "**/train/c.txt", replaced(r"^\d+", "17"), r"labels of c\.png: class 17 is not in the 2 names"),
]


@pytest.mark.parametrize(("name", "pattern", "change", "message"), ENTRIES)
def test_one_annotation_does_not_hide_the_others(
    tmp_path: Path, name: str, pattern: str, change: Edit, message: str
) -> None:
    folder = with_example(tmp_path, name)
    edit(folder, pattern, change)
    with pytest.raises(ValueError, match=message) as caught:
        open_data(folder)
    assert "\n" not in str(caught.value)
    data = dropped(folder)
    assert listed(data) == OBJECTS | {"c.png": 2}
    (error,) = errors(data)
    assert error.kind.name == "invalid_annotation"
    assert re.search(message, f"{error.subject}: {error.detail}")
    assert listed(dropped(folder, "val")) == OBJECTS
    assert errors(open_data(folder, "val")) == []


FILES = [("labelme", "train/c.json"), ("voc", "**/train/c.xml"), ("yolo", "**/train/c.txt")]


@pytest.mark.parametrize(("name", "pattern"), FILES)
def test_one_file_does_not_hide_the_others(tmp_path: Path, name: str, pattern: str) -> None:
    """Its image is left out with it, and is not said to have no annotations."""
    folder = with_example(tmp_path, name)
    (file,) = folder.glob(pattern)
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=rf"{file.name}( cannot be read|: | is )"):
        open_data(folder)
    data = dropped(folder)
    assert listed(data) == {"a.png": 2, "b.png": 0}
    (error,) = errors(data)
    assert error.kind.name == "invalid_annotation_file"
    assert error.subject.endswith(file.name)
    assert [one.kind.name for one in data.findings if one.subject == "c.png"] == []


@pytest.mark.parametrize(("name", "pattern"), FILES)
def test_nothing_but_faults_is_an_error(tmp_path: Path, name: str, pattern: str) -> None:
    folder = with_example(tmp_path, name)
    for file in folder.glob(pattern.replace("c.", "*.")):
        file.write_bytes(b"\xff\xfe{")
    (folder / "train" / "b.png").unlink(missing_ok=True)
    if name == "yolo":  # an image without label file has no objects
        for image in folder.glob("**/train/b.png"):
            image.unlink()
    with pytest.raises(ValueError, match=r"nothing that can be read|no split"):
        dropped(folder)


def test_all_rows_of_a_table(tmp_path: Path) -> None:
    folder = with_example(tmp_path, "csv")
    edit(folder, "*train*", lambda text: "\n".join([text.splitlines()[0], "a.png,1", "b.png,2"]))
    with pytest.raises(ValueError, match=r"line 2: it has 2 cells.*; and 1 more, and nothing that can be read"):
        dropped(folder)


def test_a_row_of_too_few_cells_names_no_image(tmp_path: Path) -> None:
    """Its cells may have moved."""
    folder = with_example(tmp_path, "csv")
    edit(folder, "*train*", lambda text: text.rstrip("\n") + "\ndog,1\n")
    data = dropped(folder)
    assert listed(data) == OBJECTS
    (error,) = errors(data)
    assert error.subject.startswith("line ")


@pytest.mark.parametrize("name", FORMATS)
def test_faults_without_end_stop_the_reader(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "MOST_INVALID", 1)
    folder = with_example(tmp_path, name)
    change: dict[str, Edit] = {
        "csv": lambda text: re.sub(r"(?m)^(c\.png,.*),\d+$", r"\1,x", text),
        "labelme": lambda text: re.sub(r'"points": \[\[\d+(\.0)?,', '"points": [["x",', text),
        "voc": lambda text: text.replace("<xmin>", "<xmin>x"),
        "yolo": lambda text: re.sub(r"(?m)^(\d+) \S+", r"\1 x", text),
    }
    pattern = {"csv": "*train*", "labelme": "train/c.json", "voc": "**/train/c.xml", "yolo": "**/train/c.txt"}[name]
    edit(folder, pattern, change[name])
    with pytest.raises(ValueError, match="over 1 annotations cannot be read, the first: "):
        find_reader(name).read(folder, "train")


def test_a_repaired_copy_has_all_that_is_good(tmp_path: Path) -> None:
    folder = with_example(tmp_path, "csv")
    edit(folder, "*train*", replaced(r"(?m)^(c\.png,.*),\d+$", r"\1,x"))
    result = check(folder, fix=tmp_path / "copy")
    assert "invalid_annotation" in {one.finding.kind.name for one in result.findings}
    assert listed(open_data(tmp_path / "copy")) == OBJECTS | {"c.png": 2}
    log = json.loads((tmp_path / "copy" / "fixes.json").read_text())
    assert any(one["kind"] == "invalid_annotation" for one in log["changes"]), log
