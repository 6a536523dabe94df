"""Contract of annotation formats: every file of ``data/readers/``, with the example that its own test writes.

``tests/data/readers/test_NAME.py`` has ``write_example(folder, split, images)``, which writes the images and their
annotations in the format NAME.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from boxwright.data.annotations import Annotations
from boxwright.data.open import Reader, find_reader, list_readers, list_splits, open_data, reader_summary
from boxwright.data.records import DetectionData
from boxwright.structures import Category, Task
from reader_examples import ExampleImage, example_images, write_reader_example

NAMES = list_readers()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reader(name: str) -> Reader:
    return find_reader(name)


@pytest.fixture
def folder(name: str, reader: Reader, tmp_path: Path) -> Path:
    """A data set in the format, with the splits val and train."""
    for split in ("val", "train"):
        write_reader_example(name, tmp_path / "set", split, example_images(reader.TASK, split))
    return tmp_path / "set"


def described(data: DetectionData) -> dict[str, tuple[int, int, list[tuple[Any, ...]]]]:
    """Return height, width and objects of each image by its name, objects sorted by class and corners."""
    images = {}
    for record in data.records:
        names = [data.categories[label].name for label in record.labels.tolist()]
        corners = np.round(record.boxes(), 2).tolist()
        objects = sorted((name, *box) for name, box in zip(names, corners, strict=True))
        images[record.path.name] = (record.height, record.width, objects)
    return images


def expected(task: Task, split: str) -> dict[str, tuple[int, int, list[tuple[Any, ...]]]]:
    return {
        image.file_name: (image.height, image.width, sorted((name, *map(float, box)) for name, *box in image.objects))
        for image in example_images(task, split)
    }


def test_the_module_says_what_it_is(name: str, reader: Reader) -> None:
    assert reader.TASK in get_args(Task)
    assert reader_summary(name).endswith(".")
    assert 20 <= len(reader_summary(name)) <= 120


def test_images_objects_and_classes_are_those_of_the_files(reader: Reader, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    for split in ("train", "val"):
        data = open_data(folder, split, task=reader.TASK)
        assert described(data) == expected(reader.TASK, split)
        assert {category.name for category in data.categories} == {"cat", "dog"}
        assert data.notes == ()
        assert len({record.image_id for record in data.records}) == len(data.records)
        ids = [one for record in data.records for one in record.annotation_ids]
        assert len(set(ids)) == len(ids)
    assert sorted(folder.rglob("*")) == before, "nothing is written"


def test_the_table_fits_its_types(reader: Reader, folder: Path) -> None:
    table = reader.read(folder, "train")
    assert isinstance(table, Annotations)
    count = len(table.image_index)
    assert len(table.labels) == count
    assert table.image_index.dtype == table.labels.dtype == np.int64
    assert table.bbox_xywh is None or (table.bbox_xywh.shape == (count, 4) and table.bbox_xywh.dtype == np.float64)
    assert not table.segmentations or len(table.segmentations) == count
    assert len({category.id for category in table.categories}) == len(table.categories)


def test_the_folder_is_recognized_by_this_format_alone(name: str, reader: Reader, folder: Path) -> None:
    readers = {one: find_reader(one) for one in NAMES}
    same_task = {one: other for one, other in readers.items() if other.TASK == reader.TASK}
    assert [one for one, other in same_task.items() if other.recognizes(folder)] == [name]
    assert reader.splits(folder) == ["train", "val"]
    assert list_splits(folder, task=reader.TASK) == ["train", "val"]


def test_what_is_in_another_format_is_not_recognized(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no annotations\n")
    (tmp_path / "data.json").write_text("{}")
    ExampleImage("a.png", 8, 8, ()).save(tmp_path / "a.png")
    assert not reader.recognizes(tmp_path)
    assert reader.splits(tmp_path) == []


def test_a_split_that_is_not_there_is_one_line(name: str, reader: Reader, folder: Path) -> None:
    for data_format in (None, name):
        with pytest.raises(ValueError, match=r"no split .?test") as caught:
            open_data(folder, "test", task=reader.TASK, data_format=data_format)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)


def test_classes_are_matched_with_a_models_by_name(reader: Reader, folder: Path) -> None:
    model = [Category(4, "dog"), Category(2, "bird"), Category(9, "cat")]
    data = open_data(folder, "val", task=reader.TASK, categories=model)
    assert data.categories == tuple(model)
    assert described(data) == expected(reader.TASK, "val")
    with pytest.raises(ValueError, match="unknown to the model: 'dog'; the model knows 1: 'cat'"):
        open_data(folder, "val", task=reader.TASK, categories=[Category(1, "cat")])


def test_a_missing_image_is_named(reader: Reader, folder: Path) -> None:
    data = open_data(folder, "train", task=reader.TASK)
    (gone,) = [record.path for record in data.records if record.path.name == "c.png"]
    gone.write_bytes(gone.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"of 3 images in .*, 1 unreadable: \S*c\.png"):
        open_data(folder, "train", task=reader.TASK)
