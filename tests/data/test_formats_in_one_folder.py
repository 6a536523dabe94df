"""One format for all splits, also where a folder holds several."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxwright.data.open import list_splits, open_data
from reader_examples import example_images, write_reader_example


def put(folder: Path, **splits: list[str]) -> None:
    for name, of_format in splits.items():
        for split in of_format:
            write_reader_example(name, folder, split, example_images("detection", split))


def test_the_format_with_most_splits_is_read_for_each(tmp_path: Path) -> None:
    put(tmp_path, coco=["train"], yolo=["val", "train"])
    assert list_splits(tmp_path) == ["train", "val"]
    for split in ("train", "val"):
        data = open_data(tmp_path, split)
        assert "read as yolo; it looks like coco too, which data_format=coco chooses" in data.notes[0]
        assert data.source.is_relative_to(tmp_path / "images")


def test_of_equally_many_the_first_of_the_alphabet(tmp_path: Path) -> None:
    put(tmp_path, coco=["train"], csv=["val"])
    assert list_splits(tmp_path) == ["train"]
    assert list_splits(tmp_path, data_format="csv") == ["val"]
    with pytest.raises(
        ValueError, match=r"no split 'val' in .* read as coco with the splits train; .* data_format=csv chooses"
    ):
        open_data(tmp_path, "val")
    assert len(open_data(tmp_path, "val", data_format="csv").records) == 3
