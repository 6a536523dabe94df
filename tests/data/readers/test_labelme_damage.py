"""LabelMe: files that are damaged, of another kind, no files, or of no split."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from boxwright.data.open import find_reader, list_splits, open_data
from boxwright.data.records import DetectionData
from reader_examples import ExampleImage, kinds_of

SHAPE = '{"label": "dog", "points": [[1, 2], [11, 12]], "shape_type": "rectangle"}'
DOCUMENT = f'{{"shapes": [{SHAPE}], "imagePath": "a.png"}}'


def put(root: Path, name: str = "a", *, text: str | None = None, **entries: Any) -> None:
    """Write an image of 30 x 20 pixels with one box."""
    ExampleImage("a.png", 20, 30, ()).save(root / f"{name}.png")
    document = {"shapes": [json.loads(SHAPE)], "imagePath": f"{Path(name).name}.png", "imageData": None, **entries}
    (root / f"{name}.json").write_text(text or json.dumps(document), encoding="utf-8")


def subjects(data: DetectionData, kind: str) -> list[str]:
    return [finding.subject for finding in data.findings if finding.kind.name == kind]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"imagePath"', '"shapes": [], "imagePath"', "shapes"),
        ('"points"', '"points": [[1, 1], [2, 2]], "points"', "points"),
        ('"label"', '"\\u006cabel": "cat", "label"', "label"),
        ('"imagePath"', '"imagePath": "b.png", "imagePath"', "imagePath"),
    ],
)
def test_an_entry_that_stands_twice(tmp_path: Path, old: str, new: str, key: str) -> None:
    put(tmp_path, text=DOCUMENT.replace(old, new))
    with pytest.raises(ValueError, match=rf"a\.json cannot be read: the entry '{key}' stands 2 times") as caught:
        open_data(tmp_path)
    assert "\n" not in str(caught.value)


def test_names_of_entries_as_texts_are_no_doubles(tmp_path: Path) -> None:
    put(tmp_path, flags={"label": True, "points": "shapes"}, description='"shapes"')
    assert len(open_data(tmp_path).records[0].labels) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1, 2]", "[NaN, 2]", "shape 1: its points must be pairs of finite numbers"),
        ('"dog"', '"d\\ud800"', "shape 1: its label has half a letter"),
        ("]}", "", r"a\.json cannot be read"),
    ],
)
def test_damage_in_all_files_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    put(tmp_path, text=(f'{{"imagePath": "a.png", "shapes": [{SHAPE}]}}').replace(old, new))
    assert list_splits(tmp_path) == ["train"]
    with pytest.raises(ValueError, match=message) as caught:
        open_data(tmp_path)
    assert str(caught.value).isprintable()


def test_half_a_letter_in_other_entries_does_no_harm(tmp_path: Path) -> None:
    put(tmp_path, text=f'{{"imagePath": "\\udc00.png", "version": "\\ud800", "shapes": [{SHAPE}]}}')
    assert open_data(tmp_path).records[0].path.name == "a.png"


@pytest.mark.parametrize("content", ["{}", "[]", '{"lr": 0.1}', '{"images": [], "annotations": []}'])
def test_a_file_of_another_kind_is_left_out_and_named(tmp_path: Path, content: str) -> None:
    put(tmp_path)
    (tmp_path / "config.json").write_text(content)
    data = open_data(tmp_path)
    assert len(data.records) == 1
    assert subjects(data, "not_labelme") == ["config.json"]


def test_a_pipe_is_no_annotation_file(tmp_path: Path) -> None:
    put(tmp_path)
    os.mkfifo(tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"b\.json cannot be read: it is no file"):
        open_data(tmp_path)


@pytest.mark.parametrize(("group", "count"), [("", 2), (None, 2), (3, 1), ("x", 1)])
def test_an_empty_group_is_none(tmp_path: Path, group: Any, count: int) -> None:
    put(tmp_path, shapes=[{**json.loads(SHAPE), "group_id": group}] * 2)
    assert len(open_data(tmp_path).records[0].labels) == count


@pytest.mark.parametrize(
    ("read", "unread"),
    [
        (["train/a"], ["b"]),
        (["labels/train/a"], ["labels/b"]),
        (["train/a", "val/a"], ["b", "old/labels/train/c"]),
    ],
)
def test_files_of_no_split_are_named(tmp_path: Path, read: list[str], unread: list[str]) -> None:
    for name in (*read, *unread):
        put(tmp_path, name)
    assert find_reader("labelme").unread_files(tmp_path) == [tmp_path / f"{name}.json" for name in unread]
    assert subjects(open_data(tmp_path), "unread_annotation_file") == [f"{name}.json" for name in unread]


def test_two_folders_of_one_split(tmp_path: Path) -> None:
    for name in ("train/a", "valid/b", "val/c"):
        put(tmp_path, name)
    data = open_data(tmp_path, "val")
    assert [record.path.name for record in data.records] == ["c.png"]
    assert subjects(data, "split_claimed_twice") == ["valid"]
    assert kinds_of(open_data(tmp_path)) == {}
