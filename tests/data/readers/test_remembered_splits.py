"""Splits of many annotation files are parsed once, and again after every change that matters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.data import table_memory
from boxwright.data.annotations import Annotations
from boxwright.data.open import find_reader, open_data
from reader_examples import example_images, write_reader_example

PARSERS = {
    "voc": "boxwright.data.readers.voc.parse_voc",
    "yolo": "boxwright.data.readers.yolo.parse_labels",
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table_memory, "SMALLEST_COUNT", 0)


@pytest.fixture(params=PARSERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    for split in ("train", "val"):
        write_reader_example(name, tmp_path / "set", split, example_images("detection", split))
    age(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def calls(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths of the annotation files that were parsed."""
    module, _, function = PARSERS[name].rpartition(".")
    parse: Callable[..., Any] = getattr(find_reader(name), function)
    calls: list[Path] = []

    def count(path: Path, **options: Any) -> Any:
        calls.append(path)
        return parse(path, **options)

    monkeypatch.setattr(f"{module}.{function}", count)
    return calls


def age(root: Path) -> None:
    """Give all files a time long ago: what was just written is not remembered."""
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))


def equal(one: Annotations, two: Annotations) -> bool:
    fields = ("image_index", "labels", "bbox_xywh", "area", "crowd")
    arrays = all(np.array_equal(getattr(one, field), getattr(two, field)) for field in fields)
    rest = [
        [
            *(list(t.images), list(t.segmentations), t.categories, t.findings, t.image_folders, t.path),
            *(t.has_fractions, t.has_category_ids),
        ]
        for t in (one, two)
    ]
    return arrays and rest[0] == rest[1]


def test_the_second_start_parses_nothing(name: str, root: Path, calls: list[Path]) -> None:
    read = find_reader(name).read
    first = {split: read(root, split) for split in ("train", "val")}
    count = len(calls)
    assert count > 0
    assert all(equal(table, read(root, split)) for split, table in first.items())
    assert len(calls) == count


def test_the_table_is_that_of_a_small_set(
    name: str, root: Path, calls: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for labels in root.rglob("a.*"):
        if labels.suffix == ".txt":
            labels.write_text("0 0.25 0.5 0.5 0.5 0.5 1\n")
        elif labels.suffix == ".xml":
            polygon = "<polygon><x1>1</x1><y1>2</y1><x2>11</x2><y2>2</y2><x3>11</x3><y3>12</y3></polygon></object>"
            labels.write_text(labels.read_text().replace("</object>", polygon, 1))
    age(root)
    read = find_reader(name).read
    tables = [read(root, "train"), read(root, "train")]
    monkeypatch.setattr(table_memory, "SMALLEST_COUNT", 100)
    small = read(root, "train")
    assert calls
    assert len(list(small.segmentations)) == len(small.labels)
    assert all(equal(table, small) for table in tables)


@pytest.mark.parametrize("change", ["labels", "new labels", "no labels", "new image", "no image", "name", "classes"])
def test_every_change_counts(name: str, root: Path, calls: list[Path], change: str) -> None:
    find_reader(name).read(root, "train")
    suffix = {"voc": ".xml", "yolo": ".txt"}[name]
    labels = next(path for path in root.rglob(f"a{suffix}") if "train" in path.parts)
    image = next(path for path in root.rglob("a.png") if "train" in path.parts)
    if change == "labels":
        labels.write_text(labels.read_text().replace("0", "1", 1) + " ")
    elif change == "new labels":
        labels.with_stem("new").write_text(labels.read_text())
        image.with_stem("new").write_bytes(image.read_bytes())
    elif change == "no labels":
        labels.unlink()
    elif change == "new image":
        image.with_stem("new").write_bytes(image.read_bytes())
    elif change == "no image":
        image.unlink()
    elif change == "name":
        image.rename(image.with_suffix(".bmp"))
    elif name == "yolo":
        (root / "data.yaml").write_text("train: images/train\nnames: [cow, dog]\n")
    else:
        (root / "labelmap.txt").write_text("zebra:::\n")
    age(root)
    calls.clear()
    again = find_reader(name).read(root, "train")
    assert calls
    expected = {"yolo": "cow", "voc": "zebra"}[name] if change == "classes" else "cat"
    assert again.categories[0].name == expected


def test_numbers_of_classes_without_names_follow_the_other_splits(tmp_path: Path) -> None:
    write_reader_example("yolo", tmp_path / "set", "train", example_images("detection", "train"))
    write_reader_example("yolo", tmp_path / "set", "val", example_images("detection", "val"))
    (tmp_path / "set" / "data.yaml").unlink()
    age(tmp_path / "set")
    assert len(open_data(tmp_path / "set").categories) == 2
    (tmp_path / "set" / "labels" / "val" / "a.txt").write_text("4 0.5 0.5 0.5 0.5\n")
    age(tmp_path / "set")
    assert len(open_data(tmp_path / "set").categories) == 5


def test_what_was_just_written_is_not_remembered(name: str, root: Path, calls: list[Path]) -> None:
    for path in root.rglob("*.*"):
        os.utime(path)
    find_reader(name).read(root, "train")
    count = len(calls)
    find_reader(name).read(root, "train")
    assert len(calls) == 2 * count


def test_faults_are_faults_each_time(name: str, root: Path) -> None:
    for path in [*root.rglob("a.xml"), *root.rglob("a.txt")]:
        path.write_text("9 nonsense")
    age(root)
    for _ in range(2):
        faults = [one for one in find_reader(name).read(root, "train").findings if one.kind.severity == "error"]
        assert faults
        assert {one.subject for one in faults} <= {"a.xml", "a.txt"}
        with pytest.raises(ValueError, match=r"a\.(xml|txt)"):
            open_data(root, "train", data_format=name)
