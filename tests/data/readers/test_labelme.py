"""LabelMe: layouts, kinds of shapes, groups, images, what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.data.open import find_reader, list_splits, open_data
from reader_examples import ExampleImage, findings_of, kinds_of


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    for image in images:
        path = folder / split / image.file_name
        image.save(path)
        shapes = [
            {"label": name, "points": [[x2, y1], [x1, y2]], "shape_type": "rectangle", "group_id": None}
            for name, x1, y1, x2, y2 in image.objects
        ]
        document = {"shapes": shapes, "imagePath": image.file_name, "imageData": None}
        path.with_suffix(".json").write_text(json.dumps(document))


def shape(kind: str, *points: tuple[float, float], label: Any = "dog", **other: Any) -> dict[str, Any]:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, **other}


BOX = shape("rectangle", (1, 2), (11, 12))
POLYGON = shape("polygon", (1, 2), (11, 2), (11, 12))


def put(root: Path, file: str, image: str | None, *shapes: Any, **entries: Any) -> None:
    """Write an annotation file, and its image of 30 x 20 pixels where one is named."""
    if image is not None:
        ExampleImage(Path(image).name, 20, 30, ()).save(root / image)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    document = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": Path(image or "a.png").name, **entries}
    (root / file).write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "image", "named", "splits"),
    [
        ("train/a.json", "train/a.png", "a.png", ["train"]),
        ("valid/a.json", "valid/a.png", "..\\valid\\a.png", ["val"]),
        ("a.json", "a.png", "a.png", ["train"]),
        ("annotations/a.json", "images/a.png", "../images/a.png", ["train"]),
        ("annotations/a.json", "images/a.png", "C:\\me\\a.png", ["train"]),
        ("labels/train/a.json", "images/train/a.png", "a.png", ["train"]),
        ("train/annotations/a.json", "train/images/a.png", "/home/me/a.png", ["train"]),
        ("images/a.json", "images/a.png", "a.png", ["train"]),
    ],
)
def test_layouts(tmp_path: Path, file: str, image: str, named: str, splits: list[str]) -> None:
    put(tmp_path, file, image, BOX, imagePath=named)
    assert find_reader("labelme").recognizes(tmp_path)
    assert list_splits(tmp_path, data_format="labelme") == splits
    data = open_data(tmp_path, splits[0], data_format="labelme")
    assert data.records[0].path.resolve() == tmp_path / image
    assert data.records[0].boxes().tolist() == [[1, 2, 11, 12]]
    assert findings_of(data) == []


def test_the_image_may_be_called_like_the_file(tmp_path: Path) -> None:
    put(tmp_path, "a.json", "a.png", BOX, imagePath="other.jpg")
    put(tmp_path, "b.json", "b.png", BOX, imagePath=None)
    ExampleImage("c.png", 20, 30, ()).save(tmp_path / "c.png")
    data = open_data(tmp_path)
    assert [record.path.name for record in data.records] == ["a.png", "b.png"]
    assert kinds_of(data) == {"other_image_name": 2, "image_without_annotation_file": 1}


def test_kinds_of_shapes(tmp_path: Path) -> None:
    circle = shape("circle", (10, 10), (13, 14))
    bare = {"label": "cat", "points": [[0, 0], [4, 0], [4, 4]]}
    left_out = [shape("point", (1, 1)), shape("line", (1, 1), (2, 2)), shape("linestrip", (1, 1), (2, 2), (3, 1))]
    left_out += [shape("polygon", (1, 1), (2, 2)), shape("rectangle", (1, 1)), shape("new", (1, 1), (2, 2), (3, 1))]
    put(tmp_path, "a.json", "a.png", BOX, POLYGON, circle, bare, *left_out)
    data = open_data(tmp_path)
    (record,) = data.records
    assert [category.name for category in data.categories] == ["cat", "dog"]
    assert record.labels.tolist() == [1, 1, 1, 0]
    assert record.boxes().tolist() == [[1, 2, 11, 12], [1, 2, 11, 12], [5, 5, 15, 15], [0, 0, 4, 4]]
    assert record.area.tolist() == pytest.approx([100, 50, np.pi * 25, 8], rel=0.002)
    assert record.segmentations[0] is None
    assert np.array(record.segmentations[1]).tolist() == [[1, 2, 11, 2, 11, 12]]
    assert kinds_of(data) == {"shape_without_area": len(left_out)}
    assert str(findings_of(data)[0]) == "a.json (shape 5: dog, 'point' of 1 points)"


def test_groups_are_one_object(tmp_path: Path) -> None:
    other = shape("polygon", (20, 2), (25, 2), (25, 12), group_id=3)
    grouped = [{**POLYGON, "group_id": 3}, other, {**other, "label": "cat"}, {**BOX, "group_id": None}]
    put(tmp_path, "a.json", "a.png", *grouped)
    data = open_data(tmp_path)
    (record,) = data.records
    assert record.labels.tolist() == [1, 0, 1]
    assert record.boxes().tolist() == [[1, 2, 25, 12], [20, 2, 25, 12], [1, 2, 11, 12]]
    assert record.area.tolist() == [75, 25, 100]
    assert [str(one) for one in findings_of(data)] == ["a.json (2 shapes of dog, group 3)"]


def test_masks_and_marks(tmp_path: Path) -> None:
    put(tmp_path, "a.json", "a.png", {**BOX, "shape_type": "mask", "mask": "x"}, {**BOX, "difficult": True})
    data = open_data(tmp_path)
    assert data.records[0].boxes().tolist() == [[1, 2, 11, 12]] * 2
    assert data.records[0].crowd.tolist() == [False, True]
    assert kinds_of(data) == {"mask_as_box": 1, "marked_difficult": 1}


def test_an_image_inside_its_annotation_file(tmp_path: Path) -> None:
    ExampleImage("a.png", 20, 30, ()).save(tmp_path / "else" / "a.png")
    content = (tmp_path / "else" / "a.png").read_bytes()
    put(tmp_path / "set", "a.json", None, BOX, imageData=base64.b64encode(content).decode())
    data = open_data(tmp_path / "set")
    expected = open_data(tmp_path / "set").records[0].read()
    assert expected.shape == (20, 30, 3)
    assert (data.records[0].height, data.records[0].width) == (20, 30)
    assert kinds_of(data) == {"image_in_annotation_file": 1}
    put(tmp_path / "set", "a.json", None, BOX, imageData="AAAA")
    with pytest.raises(ValueError, match=r"1 missing: a\.png"):
        open_data(tmp_path / "set")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.json cannot be read"),
        ('{"shapes": [', r"a\.json cannot be read"),
        ("[" * 100_000, r"a\.json cannot be read"),
        ("[]", r"a\.json is no LabelMe file: it is no object"),
        ("{}", r"a\.json is no LabelMe file: it has no list 'shapes'"),
        ('{"shapes": [3]}', "shape 1: it must be an object, not 3"),
        ('{"shapes": [{"label": " "}]}', "shape 1: its label must be a text that is not empty"),
        ('{"shapes": [{"label": "a", "points": 3}]}', "shape 1: its points must be a list"),
        ('{"shapes": [{"label": "a", "points": [[1, 2, 3]]}]}', "its points must be pairs of finite numbers"),
        ('{"shapes": [{"label": "a", "points": [[1, true]]}]}', "its points must be pairs of finite numbers"),
        ('{"shapes": [{"label": "a", "points": [[1, 1e999]]}]}', "pairs of finite numbers|cannot be read"),
        ('{"shapes": [{"label": "a", "points": [[1, ' + "9" * 401 + "]]}]}", "pairs of finite numbers|cannot be read"),
    ],
)
def test_faults(tmp_path: Path, content: str, message: str) -> None:
    put(tmp_path, "b.json", "b.png", BOX)
    put(tmp_path, "a.json", "a.png")
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_data(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_json_files_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"shape": []}')
    (tmp_path / "b.json").write_text("[1]")
    (tmp_path / "c.json").write_bytes(b"\xff")
    assert not find_reader("labelme").recognizes(tmp_path)
