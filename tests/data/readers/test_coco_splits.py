"""COCO files that no split is read from, several of one split, and what is no file."""

from __future__ import annotations

import os

import pytest

from boxwright.data.open import find_reader, list_splits, open_data
from boxwright.data.records import DetectionData
from reader_examples import kinds_of


def subjects(data: DetectionData, kind: str) -> list[str]:
    return [finding.subject for finding in data.findings if finding.kind.name == kind]


@pytest.mark.parametrize(
    ("taken", "others"),
    [
        ("annotations/train.json", ["annotations/instances_train.json", "annotations/train_coco.json"]),
        ("annotations/train.json", ["annotations/training.json"]),
        ("annotations/instances_train.json", ["train/_annotations.coco.json"]),
        ("annotations.json", ["labels.json", "result.json"]),
        ("train/_annotations.coco.json", ["training/_annotations.coco.json"]),
        ("train/annotations.json", ["train/labels.json"]),
    ],
)
def test_several_files_of_one_split_are_named(tiny, taken: str, others: list[str]) -> None:
    for name in (taken, *others):
        tiny.write(name)
    assert list_splits(tiny.root) == ["train"]
    data = open_data(tiny.root)
    assert data.source == tiny.root / taken
    assert subjects(data, "split_claimed_twice") == others
    assert kinds_of(data)["unread_annotation_file"] == 0


@pytest.mark.parametrize("name", ["valid", "dev", "validation"])
def test_the_folder_of_the_own_name_is_taken(tiny, name: str) -> None:
    for folder in ("val", name):
        tiny.write(f"{folder}/_annotations.coco.json", folder)
    data = open_data(tiny.root, "val")
    assert data.source == tiny.root / "val/_annotations.coco.json"
    assert subjects(data, "split_claimed_twice") == [f"{name}/_annotations.coco.json"]


@pytest.mark.parametrize(
    ("read", "unread"),
    [
        (["train/_annotations.coco.json"], ["val.json"]),
        (["train/_annotations.coco.json"], ["valid/a.json", "valid/b.json"]),
        (["annotations/val.json"], ["annotations/train/annotations.json"]),
        (["train.json"], ["extra.json"]),
        (["annotations/train.json", "annotations/val.json"], ["old/annotations/train.json"]),
    ],
)
def test_files_of_no_split_are_named_once(tiny, read: list[str], unread: list[str]) -> None:
    for name in (*read, *unread):
        tiny.write(name)
    assert find_reader("coco").unread_files(tiny.root) == [tiny.root / name for name in unread]
    first, *rest = list_splits(tiny.root)
    assert subjects(open_data(tiny.root, first), "unread_annotation_file") == unread
    for split in rest:
        assert subjects(open_data(tiny.root, split), "unread_annotation_file") == []


def test_files_of_other_kinds_are_not_named(tiny) -> None:
    tiny.write("annotations/train.json")
    for name in ("captions_train2017.json", "person_keypoints_train2017.json", "package.json"):
        (tiny.root / "annotations" / name).write_text('{"images": []}' if "_" in name else "{}")
    assert find_reader("coco").unread_files(tiny.root) == []


def test_a_year_in_the_name_where_no_other_is_there(tiny) -> None:
    tiny.write("annotations/train2017.json", "train2017")
    assert list_splits(tiny.root) == ["train"]
    for split in ("train", "train2017"):
        assert open_data(tiny.root, split).records[0].path == tiny.root / "train2017/a.png"
    tiny.write("annotations/train2014.json", "train2014")
    assert list_splits(tiny.root) == ["train2014", "train2017"]


def test_a_suffix_in_capitals(tiny) -> None:
    tiny.write("annotations/train.JSON")
    assert open_data(tiny.root).source.name == "train.JSON"


def test_more_than_fifty_files(tiny) -> None:
    for number in range(60):
        tiny.write(f"annotations/batch{number:02d}.json")
    assert len(list_splits(tiny.root)) == 60


def test_a_pipe_is_no_annotation_file(tiny) -> None:
    tiny.write("annotations/train.json")
    os.mkfifo(tiny.root / "annotations" / "foo.json")
    os.mkfifo(tiny.root / "annotations" / "val.json")
    assert subjects(open_data(tiny.root), "unread_annotation_file") == ["annotations/foo.json"]
    with pytest.raises(FileNotFoundError, match=r"val\.json is a pipe or a device, not an annotation file"):
        open_data(tiny.root, "val")


@pytest.mark.parametrize("name", ["labels.json", "q/x.json", "q.csv", "q.xml", "q.txt"])
def test_a_pipe_in_a_folder_of_no_known_format(tiny, name: str) -> None:
    (tiny.root / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tiny.root / name)
    with pytest.raises(ValueError, match=f"{name} is no file, but a pipe"):
        open_data(tiny.root)
