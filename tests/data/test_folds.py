"""Folds of a data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.data.folds import deal_folds, group_equal_files, select_records
from boxwright.data.image_dataset import ImageDataset, LabeledImage
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData, Record
from boxwright.structures import Category


def make_record(number: int, path: Path, labels: list[int]) -> Record:
    boxes = np.tile([[1.0, 1, 5, 5]], (len(labels), 1))
    return Record(
        image_id=number,
        path=path,
        height=8,
        width=8,
        labels=np.array(labels, dtype=np.int64),
        bbox_xywh=boxes,
        area=np.full(len(labels), 25.0),
        crowd=np.zeros(len(labels), dtype=np.bool_),
        annotation_ids=tuple(range(len(labels))),
    )


def make_data(folder: Path, labels: list[list[int]], contents: list[bytes] | None = None) -> DetectionData:
    """Images with objects of three classes; their files have the same length."""
    records = []
    for number, own in enumerate(labels):
        path = folder / f"{number}.jpg"
        path.write_bytes(contents[number] if contents else number.to_bytes(4, "big"))
        records.append(make_record(number, path, own))
    return DetectionData(tuple(records), tuple(Category(i, str(i)) for i in range(3)), folder, notes=("a",))


def test_every_image_is_in_one_fold_and_folds_are_alike(tmp_path: Path) -> None:
    labels = [[0] * (1 + i % 4) + [1] * (i % 2) + [2] * (i % 20 == 0) for i in range(60)]
    data = make_data(tmp_path, labels)
    folds = deal_folds(data, 3)
    assert sorted(index for fold in folds for index in fold) == list(range(60))
    assert all(fold == sorted(fold) for fold in folds)
    assert [len(fold) for fold in folds] == pytest.approx([20] * 3, abs=1)
    objects = [Counter(label for index in fold for label in labels[index]) for fold in folds]
    # Three images have an object of class 2, and 30 have one of class 1.
    assert [one[2] for one in objects] == [1, 1, 1]
    assert [one[1] for one in objects] == pytest.approx([10] * 3, abs=1)
    assert [one[0] for one in objects] == pytest.approx([50] * 3, abs=4)


def test_images_with_the_same_bytes_stay_together(tmp_path: Path) -> None:
    contents = [bytes([i % 7, 0]) for i in range(21)]
    data = make_data(tmp_path, [[0]] * 21, contents)
    assert group_equal_files(data.records) == [[i, i + 7, i + 14] for i in range(7)]
    for fold in deal_folds(data, 3):
        assert {index % 7 for index in fold} & {i % 7 for i in range(21) if i not in fold} == set()


def test_the_seed_changes_the_folds_and_nothing_else_does(tmp_path: Path) -> None:
    data = make_data(tmp_path, [[0]] * 12)
    assert deal_folds(data, 3) == deal_folds(data, 3)
    assert deal_folds(data, 3) != deal_folds(data, 3, seed=1)


@pytest.mark.parametrize("folds", [0, 1, 3])
def test_too_few_different_images_or_folds_are_an_error(tmp_path: Path, folds: int) -> None:
    data = make_data(tmp_path, [[0]] * 4, [b"a", b"a", b"b", b"b"])
    with pytest.raises(ValueError, match=rf"{folds} folds of 2 different images; folds are at least 2"):
        deal_folds(data, folds)


def test_own_samples_are_compared_by_their_pixels() -> None:
    pixels = [np.full((8, 8, 3), value, dtype=np.uint8) for value in (1, 2, 1, 3)] + [np.ones((4, 8, 3), np.uint8)]
    samples = [LabeledImage(image=one, boxes=[[1, 1, 3, 3]], labels=[0]) for one in pixels]
    data = open_data(ImageDataset(samples, ["bolt"]))
    assert group_equal_files(data.records) == [[0, 2], [1], [3], [4]]
    folds = deal_folds(data, 2)
    assert [0, 2] in ([i for i in fold if i in (0, 2)] for fold in folds)


def test_a_selection_has_the_records_and_no_notes(tmp_path: Path) -> None:
    data = make_data(tmp_path, [[0]] * 4)
    chosen = select_records(data, [3, 1])
    assert [record.image_id for record in chosen.records] == [3, 1]
    assert (chosen.notes, chosen.categories) == ((), data.categories)


@given(labels=st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=4, max_size=30), folds=st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_no_image_is_lost_and_no_fold_is_empty(
    tmp_path_factory: pytest.TempPathFactory, labels: list[list[int]], folds: int
) -> None:
    data = make_data(tmp_path_factory.mktemp("folds"), labels)
    dealt = deal_folds(data, folds)
    assert sorted(index for fold in dealt for index in fold) == list(range(len(labels)))
    assert all(dealt)
