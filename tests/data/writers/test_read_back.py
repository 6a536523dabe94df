"""Data sets that are written can be read: every split, class and object of them; else nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxwright.data.annotations import Annotations, ListedImage
from boxwright.data.join import join_images
from boxwright.data.open import list_splits, open_data
from boxwright.data.records import DetectionData, Record
from boxwright.data.writers import _check, _class_folders, coco
from boxwright.structures import Category
from boxwright.workflows.convert_data import convert_data, find_writer, list_writers

FORMATS = list_writers()
CLASSES = (Category(3, "dog"), Category(7, "cat"))
SQUARE = [2.0, 3.0, 8.0, 3.0, 8.0, 9.0, 2.0, 9.0]
RAW_BOX = [2.0, 3.0, 6.0, 6.0]


def make(
    folder: Path,
    images: int = 1,
    categories: tuple[Category, ...] = CLASSES,
    segmentations: tuple[Any, ...] = (),
) -> DetectionData:
    """Return images of 30 x 20 pixels with an object each, or with none where there are no classes."""
    for number in range(images):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 20 * number, dtype=np.uint8)).save(folder / f"{number}.png")
    count = images if categories else 0
    table = Annotations(
        path=folder,
        image_folders=(folder,),
        categories=categories,
        images=tuple(ListedImage(number + 1, f"{number}.png") for number in range(images)),
        image_index=np.arange(count),
        labels=np.zeros(count, dtype=np.int64),
        bbox_xywh=np.array([RAW_BOX] * count, dtype=np.float64).reshape(-1, 4),
        segmentations=segmentations,
    )
    return join_images(table)


def as_classes(data: DetectionData) -> DetectionData:
    """The same images for classification: each is of one class, and made anew in the folder of its class."""
    return replace(data, source=data.source / "elsewhere")


def empty() -> DetectionData:
    return DetectionData(records=(), categories=CLASSES, source=Path("none"))


def kinds(findings: list) -> list[str]:
    return [finding.kind.name for finding in findings]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "splits",
    [
        ["train", "north"],
        ["trainval", "test"],
        ["train2014", "train2017"],
        ["batch1", "batch2"],
        ["train", "my_val"],
        ["train", "trainval"],
        ["train2017"],
        ["train", "names"],
        ["val", "valid"],
        ["data", "path"],
        ["labels", "images"],
        ["all", "default"],
    ],
)
def test_every_split_comes_back_or_nothing_is_written(tmp_path: Path, name: str, splits: list[str]) -> None:
    out = tmp_path / "out"
    data = {split: make(tmp_path / split, number + 1) for number, split in enumerate(splits)}
    message = None
    try:
        find_writer(name).write(data, out, link=True)
    except ValueError as error:
        message = str(error)
    if message is not None:
        assert "cannot be written as" in message
        assert "\n" not in message
        assert not out.exists()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
        return
    assert len(list_splits(out)) == len(splits)
    for split, one in data.items():
        again = open_data(out, split)
        assert len(again.records) == len(one.records)
        assert {category.name for category in again.categories} == {"dog", "cat"}


@pytest.mark.parametrize("name", FORMATS)
def test_ordinary_names_of_splits_are_written(tmp_path: Path, name: str) -> None:
    for number, splits in enumerate((["train", "north"], ["trainval", "test"], ["batch1", "batch2"])):
        data = {split: make(tmp_path / split, 1) for split in splits}
        out = tmp_path / f"out{number}"
        find_writer(name).write(data, out, link=True)
        assert set(list_splits(out)) == set(splits)


def test_objects_that_would_not_be_read_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "_annotations", lambda *_: [])
    with pytest.raises(ValueError, match="cannot be written as coco: of 2 objects, 0 would be read"):
        coco.write({"train": make(tmp_path / "a", 2)}, tmp_path / "out", link=True)
    assert not (tmp_path / "out").exists()


def test_images_that_would_not_be_read_stop_folders_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where two of them get one name, or one that is passed over: a repaired copy is not to have fewer."""
    data, real = make(tmp_path / "a", 2), _class_folders.put_image

    def hide_second(record: Record, path: Path, *, link: bool) -> None:
        real(record, path.with_name(f".{path.name}") if "2" in path.name else path, link=link)

    splits = {"train": as_classes(data)}
    monkeypatch.setattr(_class_folders, "put_image", hide_second)
    with pytest.raises(ValueError, match="'train' cannot be written as class_folders: of 2 images, 1 would be read"):
        _class_folders.write(splits, tmp_path / "out", link=True)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(_class_folders, "put_image", real)
    _class_folders.write(splits, tmp_path / "out", link=True)
    assert len([*(tmp_path / "out").rglob("*.png")]) == 2


def test_a_class_that_would_not_be_read_stops_folders_of_classes(tmp_path: Path) -> None:
    """A name that begins with a dot is a hidden folder, which is passed over."""
    hidden = as_classes(make(tmp_path / "a", 2, (Category(1, ".dog"), Category(2, "cat"))))
    with pytest.raises(ValueError, match="cannot be written as class_folders"):
        _class_folders.write({"train": hidden}, tmp_path / "out", link=True)
    assert not (tmp_path / "out").exists()


def test_counts_of_images_and_classes_are_compared(tmp_path: Path) -> None:
    data = make(tmp_path / "a", 2)
    coco.write({"train": data}, tmp_path / "out", link=True)
    fewer = make(tmp_path / "b", 1)
    with pytest.raises(ValueError, match="of 1 images, 2 would be read"):
        _check.check_written(tmp_path / "out", "coco", {"train": fewer}, 1)
    other = make(tmp_path / "c", 2, (Category(1, "bird"),))
    with pytest.raises(ValueError, match="the class 'bird' of train cannot be written as coco"):
        _check.check_written(tmp_path / "out", "coco", {"train": other}, 2)


@pytest.mark.parametrize("name", FORMATS)
class TestNothingLeft:
    def test_a_split_without_images_is_named(self, tmp_path: Path, name: str) -> None:
        findings = find_writer(name).write({"train": make(tmp_path / "a"), "val": empty()}, tmp_path / "out", link=True)
        assert "empty_split_left_out" in kinds(findings)
        assert list_splits(tmp_path / "out") == ["train"]

    def test_no_image_at_all(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match="nothing to write: none of the splits train, val has an image"):
            find_writer(name).write({"train": empty(), "val": empty()}, tmp_path / "out", link=True)

    def test_no_class_at_all(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match="nothing to write: the data has no class"):
            find_writer(name).write({"train": make(tmp_path / "a", 1, ())}, tmp_path / "out", link=True)

    def test_no_class_in_one_split(self, tmp_path: Path, name: str) -> None:
        splits = {"train": make(tmp_path / "a"), "val": make(tmp_path / "b", 1, ())}
        find_writer(name).write(splits, tmp_path / "out", link=True)
        assert len(open_data(tmp_path / "out", "val").records) == 1


@pytest.mark.parametrize("name", ["voc", "yolo"])
@pytest.mark.parametrize(
    "polygons",
    [
        [[10**400, 1, 2, 3, 4, 5]],
        [[[2, 3], [8, 3], [8, 9]]],
        [[2, 3, 8, 3, 8, 9, 2]],
        [["x", 3, 8, 3, 8, 9]],
        [[]],
        [[2, 3, 8, 9]],
        [[2, 3, 8, 3, float("nan"), 9]],
        [[200, 300, 208, 300, 208, 309]],
        [SQUARE, [1, 2]],
    ],
)
def test_polygons_that_are_none_are_written_as_boxes(tmp_path: Path, name: str, polygons: list[Any]) -> None:
    data = make(tmp_path / "a", 2, segmentations=(polygons, [SQUARE]))
    findings = find_writer(name).write({"train": data}, tmp_path / "out", link=True)
    assert kinds(findings).count("broken_outline") == 1
    again = open_data(tmp_path / "out")
    assert [np.round(record.bbox_xywh, 6).tolist() for record in again.records] == [[RAW_BOX], [RAW_BOX]]


def test_coco_holds_all_but_numbers_that_json_has_not(tmp_path: Path) -> None:
    data = make(tmp_path / "a", 2, segmentations=([[2, 3, 8, 3, float("nan"), 9]], [[1, 2]]))
    findings = coco.write({"train": data}, tmp_path / "out", link=True)
    assert kinds(findings) == ["broken_outline"]
    assert [list(record.segmentations) for record in open_data(tmp_path / "out").records] == [[None], [[[1, 2]]]]


def test_convert_data_says_what_it_left_out(tiny, tmp_path: Path) -> None:
    tiny.write("annotations/train.json")
    tiny.write("annotations/north.json")
    converted = convert_data(tiny.root, tmp_path / "out", to="yolo")
    assert list_splits(converted.folder) == ["train", "north"]
