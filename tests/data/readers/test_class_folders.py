"""Folders of classes: order, names, what is left out, and what stops the reading."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.open import list_splits, open_data
from boxwright.structures import Category
from reader_examples import ExampleImage


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    for image in images:
        ((name, *_),) = image.objects
        image.save(folder / split / name / image.file_name)


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
    (tmp_path / "train" / "dog" / "Thumbs.db").write_text("no image")
    (tmp_path / "train" / "dog" / ".notes.txt").write_text("no image")
    return tmp_path


def test_every_image_is_one_object_as_large_as_itself(pets: Path) -> None:
    data = open_data(pets, task="classification")
    assert data.categories == (Category(1, "Cat"), Category(2, "dog"))
    assert [record.path.name for record in data.records] == ["c.jpg", "b.jpg", "a.PNG"]
    assert [record.labels.tolist() for record in data.records] == [[0], [1], [1]]
    assert data.records[1].boxes().tolist() == [[0, 0, 5, 7]]
    assert (data.records[1].height, data.records[1].width) == (7, 5)
    assert len({record.image_id for record in data.records}) == 3
    assert data.notes == ()


def test_folders_are_matched_with_a_models_classes_by_name(pets: Path) -> None:
    model = [Category(7, "dog"), Category(9, "bird"), Category(3, "Cat")]
    data = open_data(pets, task="classification", categories=model)
    assert data.categories == tuple(model)
    assert [record.labels.tolist() for record in data.records] == [[2], [0], [0]]
    with pytest.raises(ValueError, match=r"1 of its categories .* to the model: 'Cat'; the model knows 1: 'dog'"):
        open_data(pets, task="classification", categories=[Category(1, "dog")])


def test_what_is_left_out_is_said(pets: Path) -> None:
    (pets / "train" / "bird").mkdir()
    put(pets / "train" / "loose.png")
    for name in ("a.psd", "b.PSD", "c.heic", "LICENSE", ".hidden.heic"):
        (pets / "train" / "dog" / name).write_bytes(b"")
    data = open_data(pets, task="classification")
    assert [category.name for category in data.categories] == ["Cat", "bird", "dog"]
    assert data.notes == (
        f"{pets / 'train'}: 1 images in no class folder left out: loose.png",
        f"{pets / 'train'}: 4 files left out that are no images of a known kind: .psd 2, no suffix 1, .heic 1",
        f"{pets / 'train'}: 1 categories have no annotations here, and are classes all the same: 'bird'",
    )


def test_splits(pets: Path) -> None:
    assert list_splits(pets, task="classification") == ["train"]
    (pets / "val").mkdir()
    assert list_splits(pets, task="classification") == ["train"]
    put(pets / "valid" / "dog" / "x.png")
    assert list_splits(pets, task="classification") == ["train", "val"]
    data = open_data(pets, "val", task="classification", categories=[Category(1, "dog")])
    assert data.records[0].path == pets / "valid" / "dog" / "x.png"


@pytest.mark.parametrize(
    ("folders", "asked", "actual"),
    [
        (["val"], "valid", "val"),
        (["val"], "validation", "val"),
        (["validation"], "valid/", "validation"),
        (["val", "valid"], "valid", "valid"),
        (["valid", "val"], "validation", "val"),
        (["train2017"], "train", "train2017"),
        (["train2017"], "train2017", "train2017"),
        (["valid2017"], "val", "valid2017"),
        (["train", "train2017"], "train", "train"),
        (["sets/val"], "sets/val", "sets/val"),
        (["train2014", "train2017"], "train", None),
        (["train2017"], "train2014", None),
        (["val"], "test", None),
        (["val"], "", None),
    ],
)
def test_other_names_of_splits(tmp_path: Path, folders: list[str], asked: str, actual: str | None) -> None:
    for folder in folders:
        put(tmp_path / folder / "cat" / "a.png")
        put(tmp_path / folder / "dog" / "a.png")
    if actual is not None:
        assert open_data(tmp_path, asked, task="classification").source == tmp_path / actual
    else:
        names = ", ".join(repr(folder) for folder in folders)
        with pytest.raises(ValueError, match=f"for classification, .* its folders are {names}$"):
            open_data(tmp_path, asked, task="classification")


def test_folders_nested_too_deep(pets: Path) -> None:
    folder = pets / "train"
    folder.rename(pets / "inner")
    folder.mkdir()
    (pets / "inner").rename(folder / "train")
    with pytest.raises(ValueError, match="only one class") as caught:
        open_data(pets, task="classification")
    assert str(caught.value) == (
        f"{folder}: only one class has images, 'train', and a classifier tells at least two apart; add images of "
        f"another class; if the classes are the folders of 'train', 'Cat', 'dog', move them up into {folder}"
    )


def test_one_class_is_not_enough_to_learn_from(tmp_path: Path) -> None:
    put(tmp_path / "train" / "dog" / "a.png")
    (tmp_path / "train" / "cat").mkdir()
    (tmp_path / "train" / "cat" / "b.heic").write_bytes(b"")
    with pytest.raises(ValueError, match="only one class") as caught:
        open_data(tmp_path, task="classification")
    assert str(caught.value).endswith(
        "'dog', and a classifier tells at least two apart; add images of another class; "
        "1 files left out that are no images of a known kind: .heic 1"
    )
    assert len(open_data(tmp_path, task="classification", categories=[Category(1, "dog")]).records) == 1


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Möwe") for form in ("NFC", "NFD"))


def test_names_that_look_alike_are_one_class(tmp_path: Path) -> None:
    for split, name in (("train", COMPOSED), ("val", DECOMPOSED)):
        put(tmp_path / split / name / "a.png")
        put(tmp_path / split / "Zebra" / "a.png")
    train = open_data(tmp_path, task="classification")
    val = open_data(tmp_path, "val", task="classification", categories=train.categories)
    assert train.categories == open_data(tmp_path, "val", task="classification").categories
    assert train.categories == (Category(1, COMPOSED), Category(2, "Zebra"))
    model = [Category(1, DECOMPOSED), Category(2, "Zebra")]
    for data in (train, val, open_data(tmp_path, task="classification", categories=model)):
        assert [record.labels.tolist() for record in data.records] == [[0], [1]]
        assert all(record.path.is_file() for record in data.records)


def test_two_folders_that_look_alike_are_one_class(tmp_path: Path) -> None:
    for name in (COMPOSED, DECOMPOSED, "Zebra"):
        put(tmp_path / "train" / name / f"{len(name)}.png")
    if len(list((tmp_path / "train").iterdir())) < 3:
        pytest.skip("this file system takes both for one folder")
    data = open_data(tmp_path, task="classification")
    assert data.categories == (Category(1, COMPOSED), Category(2, "Zebra"))
    assert [record.labels.tolist() for record in data.records] == [[0], [0], [1]]
    assert {record.path.parent.name for record in data.records} == {COMPOSED, DECOMPOSED, "Zebra"}


def test_what_cannot_be_read_stops_it(pets: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data folder .*nowhere does not exist"):
        open_data(pets / "nowhere", task="classification")
    with pytest.raises(ValueError, match=r"no split val for classification, .* `boxwright crop` cuts one"):
        open_data(pets, "val", task="classification")
    (pets / "train" / "dog" / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"of 4 images in .*, 1 unreadable: dog/broken\.jpg"):
        open_data(pets, task="classification")


def test_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "train" / "dog").mkdir(parents=True)
    with pytest.raises(ValueError, match="no images in its folders"):
        open_data(tmp_path, task="classification")


def test_linked_folders_are_read(pets: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "x.png")
    put(tmp_path / "elsewhere" / "y.png")
    before = len(open_data(pets, "train", task="classification").records)
    (pets / "train" / "Cat" / "more").symlink_to(tmp_path / "elsewhere")
    (pets / "train" / "Cat" / "again").symlink_to(pets / "train" / "Cat")
    assert len(open_data(pets, "train", task="classification").records) == before + 2


def test_two_folders_of_one_split_are_named(pets: Path) -> None:
    for split in ("val", "valid"):
        for name in ("cat", "dog"):
            put(pets / split / name / "new.png")
    data = open_data(pets, "val", task="classification")
    assert data.source == pets / "val"
    assert [str(one) for one in data.findings if one.kind.name == "split_claimed_twice"] == ["valid (val is val)"]
