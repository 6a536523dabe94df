"""YOLO: every split, path, list, label file and link is read or named."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from boxwright.data.open import find_reader, list_splits, open_data
from boxwright.data.readers import yolo
from boxwright.data.readers._yolo_yaml import _parse
from reader_examples import findings_of, kinds_of
from yolo_files import DOG, DOG_BOX, NAMES, boxes_of, put


def texts_of(root: Path, split: str = "train") -> dict[str, list[str]]:
    """Return the findings of a split by the names of their kinds."""
    """Texts of findings by kind, but for files that belong to no split: ``unread`` lists these."""
    texts: dict[str, list[str]] = {}
    for finding in findings_of(open_data(root, split)):
        texts.setdefault(finding.kind.name, []).append(str(finding))
    assert len(texts.pop("unread_annotation_file", [])) == len(unread(root))
    return texts


def unread(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in yolo.unread_files(root)]


class TestSplitsOfDataYaml:
    @pytest.mark.parametrize(
        "splits",
        [
            ["train", "north"],
            ["trainval", "test"],
            ["train2014", "train2017"],
            ["batch1", "batch2"],
            ["other"],
        ],
    )
    def test_every_key_that_leads_to_images_is_a_split(self, tmp_path: Path, splits: list[str]) -> None:
        for split in splits:
            put(tmp_path, f"images/{split}/{split}.png", f"labels/{split}/{split}.txt", DOG)
        lines = "".join(f"{split}: images/{split}\n" for split in splits)
        (tmp_path / "data.yaml").write_text(lines + NAMES)
        assert sorted(list_splits(tmp_path)) == sorted(splits)
        for split in splits:
            data = open_data(tmp_path, split)
            assert boxes_of(data) == {f"{split}.png": [DOG_BOX]}
            assert [category.name for category in data.categories] == ["cat", "dog"]

    def test_a_key_may_lead_to_a_list(self, tmp_path: Path) -> None:
        put(tmp_path, "images/a.png", "labels/a.txt", DOG)
        (tmp_path / "north.txt").write_text("images/a.png\n")
        (tmp_path / "data.yaml").write_text("north: north.txt\n" + NAMES)
        assert list_splits(tmp_path) == ["north"]

    @pytest.mark.parametrize(
        "line",
        ["path: .", "root: images", "download: https://x.org/images/train", "author: images", "labels: labels/train"],
    )
    def test_other_keys_are_no_splits(self, tmp_path: Path, line: str) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        (tmp_path / "data.yaml").write_text(f"train: images/train\n{line}\nfolder: images\nkind: labels\n{NAMES}")
        assert list_splits(tmp_path) == ["train"]

    def test_two_keys_of_one_split(self, tmp_path: Path) -> None:
        for split in ("val", "valid"):
            put(tmp_path, f"images/{split}/{split}.png", f"labels/{split}/{split}.txt", DOG)
        (tmp_path / "data.yaml").write_text("valid: images/valid\nval: images/val\n" + NAMES)
        assert list_splits(tmp_path) == ["val"]
        assert list(boxes_of(open_data(tmp_path, "val"))) == ["val.png"]
        assert texts_of(tmp_path, "val") == {"split_claimed_twice": ["valid (val is val)"]}
        assert unread(tmp_path) == ["labels/valid/valid.txt"]

    def test_of_two_keys_the_one_that_leads_somewhere(self, tmp_path: Path) -> None:
        put(tmp_path, "images/valid/a.png", "labels/valid/a.txt", DOG)
        (tmp_path / "data.yaml").write_text("val: images/vall\nvalid: images/valid\n" + NAMES)
        assert boxes_of(open_data(tmp_path, "val")) == {"a.png": [DOG_BOX]}
        assert texts_of(tmp_path, "val") == {"path_to_nothing": ["images/vall (val in data.yaml)"]}


class TestPathsToNothing:
    @pytest.mark.parametrize("text", ["imagess/trainn", "images/train/*.jpg", "images/train/a.png", "/gone/x"])
    def test_they_are_named_by_every_split_and_by_their_own(self, tmp_path: Path, text: str) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        put(tmp_path, "images/val/b.png", "labels/val/b.txt", DOG)
        (tmp_path / "data.yaml").write_text(f"train: {text}\nval: images/val\n" + NAMES)
        assert list_splits(tmp_path) == ["val"]
        assert texts_of(tmp_path, "val") == {"path_to_nothing": [f"{text} (train in data.yaml)"]}
        assert unread(tmp_path) == ["labels/train/a.txt"]
        with pytest.raises(ValueError, match="no split 'train' in ") as caught:
            open_data(tmp_path)
        assert repr(text) in str(caught.value)

    def test_those_of_darknet(self, tmp_path: Path) -> None:
        put(tmp_path, "obj/a.png", "obj/a.txt", DOG)
        (tmp_path / "obj.names").write_text("cat\ndog\n")
        (tmp_path / "obj.data").write_text("train = train.txt\nvalid = gone.txt\n")
        (tmp_path / "train.txt").write_text("obj/a.png\n")
        assert texts_of(tmp_path) == {"path_to_nothing": ["gone.txt (valid in obj.data)"]}

    def test_one_of_several_paths(self, tmp_path: Path) -> None:
        put(tmp_path, "images/a/a.png", "labels/a/a.txt", DOG)
        (tmp_path / "data.yaml").write_text("train: [images/a, images/b]\n" + NAMES)
        assert texts_of(tmp_path) == {"path_to_nothing": ["images/b (train in data.yaml)"]}

    def test_folders_are_read_where_no_path_leads_anywhere(self, tmp_path: Path) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        (tmp_path / "data.yaml").write_text("train: gone\n" + NAMES)
        assert boxes_of(open_data(tmp_path)) == {"a.png": [DOG_BOX]}
        assert texts_of(tmp_path) == {"path_to_nothing": ["gone (train in data.yaml)"]}

    @pytest.mark.parametrize(
        ("text", "folder"),
        [
            ("Images/Train", "images/train"),
            ("images/my%20train", "images/my train"),
            (unicodedata.normalize("NFD", "images/\u00e9"), "images/\u00e9"),
            ("images/\u00e9", unicodedata.normalize("NFD", "images/\u00e9")),
        ],
    )
    def test_other_forms_of_names(self, tmp_path: Path, text: str, folder: str) -> None:
        put(tmp_path, f"{folder}/a.png", f"{folder.replace('images', 'labels')}/a.txt", DOG)
        (tmp_path / "data.yaml").write_text(f"train: {text}\n" + NAMES)
        assert boxes_of(open_data(tmp_path)) == {"a.png": [DOG_BOX]}
        assert kinds_of(open_data(tmp_path)) == {"other_path": 1}

    def test_the_end_of_a_path_is_not_that_of_another_split(self, tmp_path: Path) -> None:
        """Roboflow names ``../test/images`` also where there is no such folder."""
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        (tmp_path / "data.yaml").write_text("train: images/train\ntest: ../test/images\n" + NAMES)
        assert list_splits(tmp_path) == ["train"]


class TestFolders:
    def test_years_tell_folders_apart(self, tmp_path: Path) -> None:
        for year in ("2014", "2017"):
            put(tmp_path, f"images/train{year}/{year}.png", f"labels/train{year}/{year}.txt", DOG)
        put(tmp_path, "images/val2017/v.png", "labels/val2017/v.txt", DOG)
        assert list_splits(tmp_path) == ["train2014", "train2017", "val"]
        assert list(boxes_of(open_data(tmp_path, "train2014"))) == ["2014.png"]

    @pytest.mark.parametrize("layout", ["images/{}/{}.png labels/{}/{}.txt", "{}/images/{}.png {}/labels/{}.txt"])
    def test_two_folders_of_one_split(self, tmp_path: Path, layout: str) -> None:
        for split in ("val", "valid", "dev"):
            image, labels = (part.format(split, split) for part in layout.split())
            put(tmp_path, image, labels, DOG)
        assert list(boxes_of(open_data(tmp_path, "val"))) == ["val.png"]
        assert texts_of(tmp_path, "val")["split_claimed_twice"] == ["dev (val is val)", "valid (val is val)"]
        assert len(unread(tmp_path)) == 2

    def test_links_to_folders_are_followed(self, tmp_path: Path) -> None:
        root = tmp_path / "set"
        put(root, "images/train/a.png", "labels/train/a.txt", DOG)
        put(tmp_path, "other/images/b.png", "other/labels/b.txt", DOG)
        put(tmp_path, "third/images/c.png", "set/labels/train/third/c.txt", DOG)
        (root / "images" / "train" / "link").symlink_to(tmp_path / "other" / "images")
        (root / "images" / "train" / "third").symlink_to(tmp_path / "third" / "images")
        (root / "images" / "train" / "up").symlink_to("..")
        (root / "images" / "train" / "self").symlink_to("self")
        (root / "data.yaml").write_text("train: images/train\n" + NAMES)
        assert boxes_of(open_data(root)) == {name: [DOG_BOX] for name in ("a.png", "b.png", "c.png")}
        assert unread(root) == []


class TestLists:
    @pytest.mark.parametrize("line", ["a 1.png", "images/train/a%201.png", "images/train/A 1.PNG", "images/train/a 1"])
    def test_labels_are_those_of_the_file_that_a_name_means(self, tmp_path: Path, line: str) -> None:
        put(tmp_path, "images/train/a 1.png", "labels/train/a 1.txt", DOG)
        put(tmp_path, "images/train/b.png", "labels/train/b.txt", DOG)
        (tmp_path / "train.txt").write_text(f"{line}\nimages/train/b.png\n" if "/" in line else f"{line}\n")
        (tmp_path / "data.yaml").write_text("train: train.txt\n" + NAMES)
        data = open_data(tmp_path)
        assert boxes_of(data)["a 1.png"] == [DOG_BOX]
        assert len([one for one in findings_of(data) if one.kind.name != "unread_annotation_file"]) == 1

    def test_a_folder_is_found_by_a_later_name(self, tmp_path: Path) -> None:
        put(tmp_path, "images/a.png", "labels/a.txt", DOG)
        put(tmp_path, "images/b.png", "labels/b.txt", DOG)
        (tmp_path / "train.txt").write_text("/home/me/images/B.png\n/home/me/images/a.png\n")
        (tmp_path / "data.yaml").write_text("train: train.txt\n" + NAMES)
        assert boxes_of(open_data(tmp_path)) == {"a.png": [DOG_BOX], "b.png": [DOG_BOX]}


class TestLabelFiles:
    @pytest.mark.parametrize("stem", ["test", "train", "val", "valid", "labels", "classes", "obj", "readme_3", "Train"])
    @pytest.mark.parametrize("folder", ["images/train", "photos"])
    def test_an_image_may_be_called_like_a_list(self, tmp_path: Path, stem: str, folder: str) -> None:
        put(tmp_path, f"{folder}/{stem}.png", f"{folder.replace('images', 'labels')}/{stem}.txt", DOG)
        (tmp_path / "data.yaml").write_text(f"train: {folder}\n" + NAMES)
        assert boxes_of(open_data(tmp_path)) == {f"{stem}.png": [DOG_BOX]}

    def test_lists_and_class_names_are_no_label_files(self, tmp_path: Path) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        for name, text in {"classes": "cat\ndog\n", "train": "images/a.png\n", "README": "1 2\n", "test": DOG}.items():
            (tmp_path / "labels" / "train" / f"{name}.txt").write_text(text)
        (tmp_path / "data.yaml").write_text("train: images/train\n" + NAMES)
        assert texts_of(tmp_path) == {"labels_without_image": ["test.txt"]}
        assert unread(tmp_path) == []

    def test_label_files_of_several_images(self, tmp_path: Path) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        put(tmp_path, "images/train/a.bmp")
        (tmp_path / "data.yaml").write_text("train: images/train\n" + NAMES)
        assert texts_of(tmp_path) == {"shared_labels": ["a.txt (a.bmp, a.png)"]}

    @pytest.mark.parametrize("kind", ["pipe", "folder"])
    def test_what_is_no_file_is_an_error(self, tmp_path: Path, kind: str) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/b.txt", DOG)
        path = tmp_path / "labels" / "train" / "a.txt"
        os.mkfifo(path) if kind == "pipe" else path.mkdir()
        (tmp_path / "data.yaml").write_text("train: images/train\n" + NAMES)
        with pytest.raises(ValueError, match=rf"a\.txt is a {kind}, not a file"):
            open_data(tmp_path)

    def test_data_yaml_that_is_a_pipe(self, tmp_path: Path) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        os.mkfifo(tmp_path / "data.yaml")
        with pytest.raises(ValueError, match=r"data\.yaml is a pipe"):
            open_data(tmp_path)

    def test_files_that_belong_to_no_split(self, tmp_path: Path) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        put(tmp_path, "images/train/b.png", "labels/train/sub/x.txt", DOG)
        put(tmp_path, "images/n.png", "labels/n.txt", DOG)
        put(tmp_path, "more/m.png", "more/m.txt", DOG)
        (tmp_path / "labels" / "train" / "a.TXT").write_text(DOG)
        (tmp_path / "notes.txt").write_text("text")
        (tmp_path / "data.yaml").write_text("train: images/../images/train\n" + NAMES)
        expected = ["labels/train/a.TXT", "labels/train/sub/x.txt", "more/m.txt"]
        # labels/n.txt is in a folder that is searched for labels of train: reading train names it.
        assert unread(tmp_path) == expected
        assert texts_of(tmp_path) == {"labels_without_image": ["n.txt"]}

    def test_images_in_no_list(self, tmp_path: Path) -> None:
        put(tmp_path, "images/a.png", "labels/a.txt", DOG)
        put(tmp_path, "images/b.png", "labels/b.txt", DOG)
        (tmp_path / "train.txt").write_text("images/a.png\n")
        assert unread(tmp_path) == ["labels/b.txt"]

    def test_a_broken_list_of_another_split_is_no_matter(self, tmp_path: Path) -> None:
        put(tmp_path, "images/a.png", "labels/a.txt", DOG)
        (tmp_path / "train.txt").write_text("images/a.png\n")
        (tmp_path / "val.txt").write_bytes(b"\xff\xfe\x00")
        (tmp_path / "data.yaml").write_text("train: train.txt\nval: val.txt\n" + NAMES)
        assert boxes_of(open_data(tmp_path)) == {"a.png": [DOG_BOX]}
        assert unread(tmp_path) == []

    def test_nothing_is_unread_in_folders_of_other_formats(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png")
        (tmp_path / "notes.txt").write_text("1 0.5 0.5 1 1")
        assert not find_reader("yolo").recognizes(tmp_path)
        assert unread(tmp_path) == []


def test_data_yaml_is_parsed_once(tmp_path: Path) -> None:
    put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
    (tmp_path / "data.yaml").write_text("train: images/train\n" + NAMES)
    before = _parse.cache_info().misses
    list_splits(tmp_path)
    open_data(tmp_path)
    assert _parse.cache_info().misses == before + 1
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, dog, cow]\n")
    assert len(open_data(tmp_path).categories) == 3
