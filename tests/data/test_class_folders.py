"""Folders of classes: order, names, what is left out, and what stops the reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.class_folders import has_split, open_class_folders
from boxwright.structures import Category


def put(path: Path, height: int = 6, width: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    put(tmp_path / "train" / "dog" / "b.jpg", 7, 5)
    put(tmp_path / "train" / "dog" / "deep" / "a.PNG")
    put(tmp_path / "train" / "Cat" / "c.jpg")
    put(tmp_path / "train" / "dog" / ".hidden.jpg")
    put(tmp_path / "train" / ".cache" / "d.jpg")
    put(tmp_path / "train" / "dog" / ".thumbs" / "b.jpg")
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no picture")
    return tmp_path


def test_every_picture_is_one_object_as_large_as_itself(pets: Path) -> None:
    data = open_class_folders(pets)
    assert data.categories == (Category(1, "Cat"), Category(2, "dog"))
    assert [record.path.name for record in data.records] == ["c.jpg", "b.jpg", "a.PNG"]
    assert [record.labels.tolist() for record in data.records] == [[0], [1], [1]]
    assert data.records[1].boxes().tolist() == [[0, 0, 5, 7]]
    assert (data.records[1].height, data.records[1].width) == (7, 5)
    assert len({record.image_id for record in data.records}) == 3
    assert data.notes == ()


def test_folders_are_matched_with_a_models_classes_by_name(pets: Path) -> None:
    model = [Category(7, "dog"), Category(9, "bird"), Category(3, "Cat")]
    data = open_class_folders(pets, categories=model)
    assert data.categories == tuple(model)
    assert [record.labels.tolist() for record in data.records] == [[2], [0], [0]]
    with pytest.raises(ValueError, match="1 of its classes are unknown to the model: 'Cat'; the model knows 1: 'dog'"):
        open_class_folders(pets, categories=[Category(1, "dog")])


def test_what_is_left_out_is_said(pets: Path) -> None:
    (pets / "train" / "bird").mkdir()
    put(pets / "train" / "loose.png")
    data = open_class_folders(pets)
    assert [category.name for category in data.categories] == ["Cat", "bird", "dog"]
    assert data.notes == (
        f"{pets / 'train'}: 1 of 3 classes have no pictures here: 'bird'",
        f"{pets / 'train'}: 1 pictures in no class folder left out: loose.png",
    )


def test_splits(pets: Path) -> None:
    assert has_split(pets, "train")
    assert not has_split(pets, "val")
    (pets / "val").mkdir()
    assert not has_split(pets, "val")
    put(pets / "valid" / "dog" / "x.png")
    assert has_split(pets, "val")
    assert open_class_folders(pets, "val").records[0].path == pets / "valid" / "dog" / "x.png"


def test_what_cannot_be_read_stops_it(pets: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; a data set for classification has train/CLASS"):
        open_class_folders(pets / "nowhere")
    with pytest.raises(ValueError, match=r"no split val for classification, .* `boxwright crop` cuts one"):
        open_class_folders(pets, "val")
    (pets / "train" / "dog" / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"of 4 pictures in .*, 1 unreadable: dog/broken\.jpg"):
        open_class_folders(pets)


def test_folders_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "train" / "dog").mkdir(parents=True)
    with pytest.raises(ValueError, match="no pictures in its folders"):
        open_class_folders(tmp_path)
