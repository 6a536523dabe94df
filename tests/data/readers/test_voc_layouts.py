"""Pascal VOC: every list, folder, annotation file and object is read or named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boxwright.data.open import list_splits, open_data
from boxwright.data.readers import voc
from reader_examples import findings_of, kinds_of
from voc_files import DOG, objects_of, put


def write_lists(root: Path, **lists: str) -> None:
    """Write a set with an image for each letter of the lists."""
    for stem in sorted({line.split()[0] for text in lists.values() for line in text.splitlines() if line}):
        put(root, "Annotations", "JPEGImages", Path(stem).stem, DOG)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, text in lists.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)


def images_by_split(root: Path) -> dict[str, str]:
    """Return the stems of the images of each split, put together."""
    return {
        split: "".join(Path(name).stem for name in objects_of(open_data(root, split))) for split in list_splits(root)
    }


def unread(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in voc.unread_files(root)]


class TestLists:
    @pytest.mark.parametrize(
        ("lists", "expected"),
        [
            ({"train": "a\nb\n", "my_val": "c\n"}, {"train": "ab", "my_val": "c"}),
            ({"train": "a\n", "val": "b\n", "my_val": "c\n"}, {"train": "a", "val": "b", "my_val": "c"}),
            ({"train": "a\n", "val": "b\n", "dog_val": "b  1\n"}, {"train": "a", "val": "b"}),
            ({"train": "a\n", "val": "b\n", "dog_val": "b\n"}, {"train": "a", "val": "b"}),
            ({"train": "a\n", "val": "b\n", "trainval": "a\nb\n"}, {"train": "a", "val": "b"}),
            ({"train": "a\n", "trainval": "b\nc\n"}, {"train": "a", "trainval": "bc"}),
            ({"train": "a\n", "trainval": "a\nb\n"}, {"train": "a", "trainval": "ab"}),
            ({"default": "a\nb\n", "dog_default": "a  1\nb -1\n"}, {"train": "ab"}),
            ({"default": "a\nb\n", "dog_default": "", "background_default": ""}, {"train": "ab"}),
            ({"Train": "a\n", "Validation": "b\n", "dog_Train": "a  1\n"}, {"train": "a", "val": "b"}),
            ({"bccd_train": "a\n", "bccd_val": "b\n"}, {"bccd_train": "a", "bccd_val": "b"}),
        ],
    )
    def test_lists_of_one_class_are_told_from_splits(
        self, tmp_path: Path, lists: dict[str, str], expected: dict[str, str]
    ) -> None:
        write_lists(tmp_path, **lists)
        assert images_by_split(tmp_path) == expected
        assert unread(tmp_path) == []

    def test_two_lists_of_one_split(self, tmp_path: Path) -> None:
        write_lists(tmp_path, train="a\n", val="b\n", valid="c\n")
        assert images_by_split(tmp_path) == {"train": "a", "val": "b"}
        assert [str(one) for one in findings_of(open_data(tmp_path, "val"))] == ["valid (val is val)"]
        assert unread(tmp_path) == ["Annotations/c.xml"]

    @pytest.mark.parametrize(
        "line", ["/x/JPEGImages/a.png", "JPEGImages/a.png", "C:\\x\\a.png", "./JPEGImages/a", "a.xml"]
    )
    def test_lines_may_be_paths(self, tmp_path: Path, line: str) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(line + "\n")
        data = open_data(tmp_path)
        assert objects_of(data) == {"a.png": [DOG]}
        assert findings_of(data) == []

    def test_two_paths_of_one_file(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("p/a.png\nq/a.png\n")
        assert kinds_of(open_data(tmp_path)) == {"image_listed_twice": 1}

    def test_images_in_no_list(self, tmp_path: Path) -> None:
        write_lists(tmp_path, train="a\n", val="b\n")
        put(tmp_path, "Annotations", "JPEGImages", "c", DOG)
        assert unread(tmp_path) == ["Annotations/c.xml"]

    def test_a_list_that_is_a_pipe(self, tmp_path: Path) -> None:
        write_lists(tmp_path, val="a\n")
        os.mkfifo(tmp_path / "ImageSets" / "Main" / "train.txt")
        with pytest.raises(ValueError, match=r"train\.txt is no list of images: is a pipe, not a file"):
            open_data(tmp_path)
        assert unread(tmp_path) == []


class TestFolders:
    def test_years_tell_folders_apart(self, tmp_path: Path) -> None:
        for year in ("2007", "2012"):
            put(tmp_path, f"Annotations/train{year}", f"JPEGImages/train{year}", year, DOG)
        assert images_by_split(tmp_path) == {"train2007": "2007", "train2012": "2012"}

    def test_two_folders_of_one_split(self, tmp_path: Path) -> None:
        for split in ("train", "val", "valid"):
            put(tmp_path, split, split, split, DOG)
        assert images_by_split(tmp_path) == {"train": "train", "val": "val"}
        assert [str(one) for one in findings_of(open_data(tmp_path, "val"))] == ["valid (val is val)"]
        assert unread(tmp_path) == ["valid/valid.xml"]

    def test_files_above_the_folders_of_splits(self, tmp_path: Path) -> None:
        put(tmp_path, ".", ".", "a", DOG)
        put(tmp_path, "train", "train", "b", DOG)
        (tmp_path / "other.xml").write_text("<project/>")
        assert unread(tmp_path) == ["a.xml"]

    def test_two_files_of_one_name(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        (tmp_path / "Annotations" / "a.XML").write_text("<annotation></annotation>")
        assert objects_of(open_data(tmp_path)) == {"a.png": [DOG]}
        assert unread(tmp_path) == ["Annotations/a.XML"]

    def test_a_file_that_is_a_pipe(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        os.mkfifo(tmp_path / "Annotations" / "b.xml")
        with pytest.raises(ValueError, match=r"b\.xml is a pipe, not a file"):
            open_data(tmp_path)


class TestImages:
    def test_the_name_of_a_file_may_end_in_that_of_an_image(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "c", DOG)
        (tmp_path / "Annotations" / "c.xml").rename(tmp_path / "Annotations" / "c.png.xml")
        data = open_data(tmp_path)
        assert objects_of(data) == {"c.png": [DOG]}
        assert findings_of(data) == []

    def test_another_image_of_the_same_stem_is_named(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        (tmp_path / "JPEGImages" / "a.bmp").write_bytes((tmp_path / "JPEGImages" / "a.png").read_bytes())
        assert [str(one) for one in findings_of(open_data(tmp_path, check_images=False))] == ["a.bmp"]


class TestObjects:
    def edit(self, root: Path, *edits: tuple[str, str]) -> Path:
        put(root, "train", "train", "a", DOG, ("cat", 2, 3, 4, 5))
        path = root / "train" / "a.xml"
        text = path.read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        return root

    @pytest.mark.parametrize(
        "edits",
        [
            [("object>", "Object>")],
            [("bndbox>", "BndBox>"), ("xmin>", "XMin>"), ("annotation>", "Annotation>")],
            [("</size><object>", "</size><objects><object>"), ("</annotation>", "</objects></annotation>")],
            [("<object>", "<item><object>"), ("</object>", "</object></item>")],
        ],
    )
    def test_objects_of_any_case_and_level(self, tmp_path: Path, edits: list[tuple[str, str]]) -> None:
        data = open_data(self.edit(tmp_path, *edits))
        assert objects_of(data) == {"a.png": [DOG, ("cat", 2, 3, 4, 5)]}
        assert findings_of(data) == []

    def test_several_boxes_of_one_object(self, tmp_path: Path) -> None:
        data = open_data(self.edit(tmp_path, ("</object><object><name>cat</name>", "")))
        assert objects_of(data) == {"a.png": [DOG, ("dog", 2, 3, 4, 5)]}
        assert [str(one) for one in findings_of(data)] == ["a.xml (object 1: dog, 2 boxes)"]

    @pytest.mark.parametrize(("name", "kind"), [("part", "part_left_out"), ("item", "box_outside_object")])
    def test_boxes_that_are_no_objects_are_named(self, tmp_path: Path, name: str, kind: str) -> None:
        element = f"<{name}><name>head</name><bndbox><xmin>1</xmin></bndbox></{name}>"
        data = open_data(self.edit(tmp_path, ("<name>dog</name>", f"<name>dog</name>{element}")))
        assert objects_of(data) == {"a.png": [DOG, ("cat", 2, 3, 4, 5)]}
        assert kinds_of(data) == {kind: 1}
        assert [str(one) for one in findings_of(data)] == [f"a.xml (<{name}>: head)"]
