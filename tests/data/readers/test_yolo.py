"""YOLO: layouts, data.yaml, boxes and polygons, what is repaired, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.open import find_reader, list_splits, open_data
from boxwright.data.records import DetectionData
from boxwright.structures import Category
from reader_examples import ExampleImage, findings_of, kinds_of
from yolo_files import DOG, DOG_BOX, NAMES, TRIANGLE, TRIANGLE_BOX, boxes_of, put


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    labels = folder / "labels" / split
    labels.mkdir(parents=True, exist_ok=True)
    for image in images:
        image.save(folder / "images" / split / image.file_name)
        lines = [
            f"{['cat', 'dog'].index(name)} {(x1 + x2) / 2 / image.width} {(y1 + y2) / 2 / image.height} "
            f"{(x2 - x1) / image.width} {(y2 - y1) / image.height}\n"
            for name, x1, y1, x2, y2 in image.objects
        ]
        if lines:
            (labels / image.file_name).with_suffix(".txt").write_text("".join(lines))
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")


class TestRealSet:
    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_the_boxes_of_bccd(self, real_data, split: str) -> None:
        """Six digits of a fraction of 640 pixels are within 0.00032 pixels; a corner takes one and a half of them."""
        coco = open_data(real_data("bccd"), split, data_format="coco", check_images=False)
        yolo = open_data(real_data("bccd"), split, data_format="yolo", check_images=False)
        assert [one.path.name for one in yolo.records] == [one.path.name for one in coco.records]
        assert [category.name for category in yolo.categories] == ["WBC", "RBC", "Platelets"]
        assert findings_of(yolo) == []
        for one, other in zip(yolo.records, coco.records, strict=True):
            assert one.labels.tolist() == other.labels.tolist()
            assert np.abs(one.boxes() - other.boxes()).max(initial=0) < 0.0006


class TestLayouts:
    @pytest.mark.parametrize(
        ("yaml", "image", "labels"),
        [
            ("path: .\ntrain: images/train\n", "images/train/a.png", "labels/train/a.txt"),
            ("train: images/train\n", "images/train/a.png", "labels/train/a.txt"),
            ("path: ../datasets/pets\ntrain: images/train\n", "images/train/a.png", "labels/train/a.txt"),
            ("path: /home/me/pets\ntrain: images/train\n", "images/train/a.png", "labels/train/a.txt"),
            ("train: /home/me/pets/images/train/\n", "images/train/a.png", "labels/train/a.txt"),
            ("train: C:\\Users\\me\\pets\\images\\train\n", "images/train/a.png", "labels/train/a.txt"),
            ("train: ../train/images\nval: ../valid/images\n", "train/images/a.png", "train/labels/a.txt"),
            ("train: train\n", "train/images/a.png", "train/labels/a.txt"),
            ("train: [images/x, images/y]\n", "images/x/a.png", "labels/x/a.txt"),
            ("train:\n- images/x\n- gone\n", "images/x/deep/a.png", "labels/x/deep/a.txt"),
            ("train: train.txt\n", "images/a.png", "labels/a.txt"),
            ("train: train.txt\n", "images/a.png", "images/a.txt"),
            ("train: images\n", "images/a.png", "labels/a.txt"),
            ("train: photos\n", "photos/a.png", "photos/a.txt"),
            ("train: images/train\n", "images/train/a.png", "labels/a.txt"),
        ],
    )
    def test_paths_in_data_yaml(self, tmp_path: Path, yaml: str, image: str, labels: str) -> None:
        put(tmp_path, image, labels, DOG)
        (tmp_path / "data.yaml").write_text(yaml + NAMES)
        (tmp_path / "train.txt").write_text("./images/a.png\n")
        assert list_splits(tmp_path) == ["train"]
        data = open_data(tmp_path)
        assert boxes_of(data) == {"a.png": [DOG_BOX]}
        assert data.records[0].path == tmp_path / image

    @pytest.mark.parametrize(
        "line",
        [
            "images/a.png",
            "./images/a.png",
            "images\\a.png",
            "a.png",
            "/home/me/pets/images/a.png",
            "/gone/a.png",
            "D:\\x\\images\\a.png",
        ],
    )
    def test_paths_in_lists(self, tmp_path: Path, line: str) -> None:
        put(tmp_path, "images/a.png", "labels/a.txt", DOG)
        (tmp_path / "data.yaml").write_text("train: train.txt\n" + NAMES)
        (tmp_path / "train.txt").write_text(f"\ufeff{line}\r\n\n")
        assert boxes_of(open_data(tmp_path)) == {"a.png": [DOG_BOX]}

    def test_a_list_in_another_folder_and_absolute_paths(self, tmp_path: Path) -> None:
        put(tmp_path, "outside/images/a.png", "outside/labels/a.txt", DOG)
        (tmp_path / "set" / "lists").mkdir(parents=True)
        (tmp_path / "set" / "data.yaml").write_text("train: lists/t.txt\n" + NAMES)
        (tmp_path / "set" / "lists" / "t.txt").write_text(f"{tmp_path}/outside/images/a.png\n" * 2)
        data = open_data(tmp_path / "set")
        assert boxes_of(data) == {"a.png": [DOG_BOX]}
        assert kinds_of(data) == {"image_listed_twice": 1}

    def test_the_folder_itself_goes_before_its_parent(self, tmp_path: Path) -> None:
        """Roboflow writes ``../train/images`` where ``train/images`` is meant."""
        put(tmp_path, "train/images/b.png", "train/labels/b.txt", DOG, DOG)
        put(tmp_path / "set", "train/images/a.png", "train/labels/a.txt", DOG)
        (tmp_path / "set" / "data.yaml").write_text("train: ../train/images\n" + NAMES)
        assert boxes_of(open_data(tmp_path / "set")) == {"a.png": [DOG_BOX]}

    @pytest.mark.parametrize("names", ["classes.txt", "obj.names", "labels/classes.txt"])
    @pytest.mark.parametrize(
        ("image", "labels", "splits"),
        [
            ("images/train/a.png", "labels/train/a.txt", ["train"]),
            ("images/train2017/a.png", "labels/train2017/a.txt", ["train"]),
            ("validate/images/a.png", "validate/labels/a.txt", ["val"]),
            ("images/a.png", "labels/a.txt", ["train"]),
            ("valid/a.png", "valid/a.txt", ["val"]),
            ("a.png", "a.txt", ["train"]),
        ],
    )
    def test_without_data_yaml(self, tmp_path: Path, image: str, labels: str, splits: list[str], names: str) -> None:
        put(tmp_path, image, labels, DOG)
        (tmp_path / names).parent.mkdir(exist_ok=True)
        (tmp_path / names).write_text("cat\ndog\n\n")
        assert list_splits(tmp_path) == splits
        data = open_data(tmp_path, splits[0])
        assert boxes_of(data) == {"a.png": [DOG_BOX]}
        assert data.categories == (Category(0, "cat"), Category(1, "dog"))

    def test_darknet(self, tmp_path: Path) -> None:
        put(tmp_path, "obj_train_data/a.png", "obj_train_data/a.txt", DOG)
        (tmp_path / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
        (tmp_path / "obj.names").write_text("cat\ndog\n")
        (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
        assert list_splits(tmp_path) == ["train"]
        assert boxes_of(open_data(tmp_path)) == {"a.png": [DOG_BOX]}

    def test_without_names(self, tmp_path: Path) -> None:
        put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
        put(tmp_path, "images/val/b.png", "labels/val/b.txt", "3 0.5 0.5 0.1 0.1")
        for split in ("train", "val"):
            data = open_data(tmp_path, split)
            assert [category.name for category in data.categories] == ["0", "1", "2", "3"]
            assert kinds_of(data) == {"classes_without_names": 4}

    @pytest.mark.parametrize("key", ["val", "valid", "validation", "validate"])
    def test_names_of_the_split_val(self, tmp_path: Path, key: str) -> None:
        put(tmp_path, "images/x/a.png", "labels/x/a.txt", DOG)
        (tmp_path / "data.yaml").write_text(f"{key}: images/x\ntrain:\ntest: images/gone\n" + NAMES)
        assert list_splits(tmp_path) == ["val"]
        assert boxes_of(open_data(tmp_path, "valid")) == {"a.png": [DOG_BOX]}

    def test_nothing_that_data_yaml_names_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "data.yaml").write_text("train: images/gone\n" + NAMES)
        with pytest.raises(
            ValueError, match=r"no split 'train' in .*: train in data.yaml is 'images/gone', which leads to no"
        ):
            open_data(tmp_path)
        assert list_splits(tmp_path) == []


def one(root: Path, *lines: str, yaml: str = NAMES) -> DetectionData:
    put(root, "images/train/a.png", "labels/train/a.txt", *lines)
    (root / "data.yaml").write_text("train: images/train\n" + yaml)
    return open_data(root)


class TestLabels:
    def test_boxes_and_polygons_in_one_file(self, tmp_path: Path) -> None:
        oriented = "1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75"
        data = one(tmp_path, DOG, "", TRIANGLE, "  ", oriented)
        assert boxes_of(data) == {"a.png": [DOG_BOX, TRIANGLE_BOX, [1, 10, 5, 20, 15]]}
        assert list(data.records[0].segmentations) == [
            None,
            [[10, 10, 20, 10, 20, 20]],
            [[10, 5, 20, 5, 20, 15, 10, 15]],
        ]
        assert data.records[0].area.tolist() == [100, 50, 100]
        assert findings_of(data) == []

    @pytest.mark.parametrize(
        "line",
        [
            "1.0 0.5 0.5 0.25 0.5",
            "1\t0.5\t0.5\t0.25\t0.5",
            "1,0.5,0.5,0.25,0.5",
            "1, 0.5, 0.5, 0.25, 0.5",
            " 1 5e-1 .5 +0.25 0.5\r",
        ],
    )
    def test_forms_of_numbers(self, tmp_path: Path, line: str) -> None:
        data = one(tmp_path, line)
        assert boxes_of(data) == {"a.png": [DOG_BOX]}
        assert findings_of(data) == []

    @pytest.mark.parametrize(
        ("line", "kind"),
        [
            ("1 0,5 0,5 0,25 0,5", "decimal_commas"),
            (DOG + " 0.98", "confidence_ignored"),
            ("1 0.375 0.25 0.625 0.25 0.625 0.75 0.5 0.75 0.9", "confidence_ignored"),
        ],
    )
    def test_repairs(self, tmp_path: Path, line: str, kind: str) -> None:
        data = one(tmp_path, DOG, line)
        assert boxes_of(data) == {"a.png": [DOG_BOX, DOG_BOX]}
        assert [str(finding) for finding in findings_of(data)] == ["a.txt (line 2)"]
        assert kinds_of(data) == {kind: 1}

    def test_key_points(self, tmp_path: Path) -> None:
        data = one(tmp_path, DOG + " 0.1 0.1 2 0.2 0.2 1", yaml="kpt_shape: [2, 3]\n" + NAMES)
        assert boxes_of(data) == {"a.png": [DOG_BOX]}
        assert kinds_of(data) == {"key_points_ignored": 1}

    def test_beyond_the_image(self, tmp_path: Path) -> None:
        data = one(tmp_path, "0 0.9375 0.5 0.25 1", "0 0.875 0.5 0.5 1")
        assert boxes_of(data) == {"a.png": [[0, 32.5, 0, 40, 20], [0, 25, 0, 40, 20]]}
        assert kinds_of(data)["far_beyond_image"] == 1

    def test_files_without_partner(self, tmp_path: Path) -> None:
        put(tmp_path, "images/train/b.png")
        put(tmp_path, "images/train/c.png", "labels/train/c.txt")
        (tmp_path / "labels" / "train" / "gone.txt").write_text(DOG)
        (tmp_path / "labels" / "train" / "classes.txt").write_text("cat")
        data = one(tmp_path, DOG)
        assert boxes_of(data) == {"a.png": [DOG_BOX], "b.png": [], "c.png": []}
        assert [str(finding) for finding in findings_of(data)] == ["gone.txt"]

    def test_labels_of_other_splits_are_not_without_image(self, tmp_path: Path) -> None:
        put(tmp_path, "images/a.png", "labels/a.txt", DOG)
        put(tmp_path, "images/b.png", "labels/b.txt", DOG)
        (tmp_path / "data.yaml").write_text("train: train.txt\nval: val.txt\n" + NAMES)
        (tmp_path / "train.txt").write_text("images/a.png\n")
        (tmp_path / "val.txt").write_text("images/b.png\n")
        assert findings_of(open_data(tmp_path)) == findings_of(open_data(tmp_path, "val")) == []

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("2 0.5 0.5 0.1 0.1", r"labels of a\.png: class 2 is not in the 2 names \(0 to 1\)"),
            ("-1 0.5 0.5 0.1 0.1", "the class is a whole number from 0 on, not '-1'"),
            ("0.5 0.5 0.5 0.1 0.1", "the class is a whole number"),
            ("dog 0.5 0.5 0.1 0.1", "'dog' is no finite number"),
            ("0 nan 0.5 0.1 0.1", "'nan' is no finite number"),
            ("0 0.5 0.5 0.1", "it has 3 numbers behind the class"),
            ("0", "it has 0 numbers behind the class"),
            ("0 0.5 0.5 0.1 0.1 7", "it has 5 numbers behind the class"),
            ("0 100 50 20 10", "fractions of the image's sides, from 0 to 1, not 100; is it in pixels"),
            ("0 " + "9" * 401 + " 0.5 0.1 0.1", "is no finite number"),
        ],
    )
    def test_faults(self, tmp_path: Path, line: str, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            one(tmp_path, DOG, line)
        assert "\n" not in str(caught.value)
        assert "class 2" in message or "a.txt: line 2: " in str(caught.value)

    def test_no_text(self, tmp_path: Path) -> None:
        one(tmp_path, DOG)
        (tmp_path / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe0 1")
        with pytest.raises(ValueError, match=r"a\.txt is no text file"):
            open_data(tmp_path)


class TestNames:
    @pytest.mark.parametrize(
        ("yaml", "expected"),
        [
            ("names: [no, 1.0]", ["no", "1.0"]),
            ("names: {0: yes, 1: '2024-01-01'}", ["yes", "2024-01-01"]),
            ("names:\n  1: b\n  0: a", ["a", "b"]),
            ("nc: 2", ["class0", "class1"]),
            ("nc: 3\nnames: [a, ' b ']", ["a", "b"]),
            ("names: names.txt", ["x", "y"]),
        ],
    )
    def test_forms(self, tmp_path: Path, yaml: str, expected: list[str]) -> None:
        (tmp_path / "names.txt").write_text("x\ny\n")
        data = one(tmp_path, DOG, yaml=yaml + "\n")
        assert [category.name for category in data.categories] == expected
        assert boxes_of(data) == {"a.png": [DOG_BOX]}
        assert kinds_of(data) == ({"other_number_of_classes": 1} if "nc: 3" in yaml else {})

    def test_numbers_may_be_sparse(self, tmp_path: Path) -> None:
        data = one(tmp_path, "7 0.5 0.5 0.25 0.5", yaml="names: {2: a, 7: b}\n")
        assert data.categories == (Category(2, "a"), Category(7, "b"))
        assert boxes_of(data) == {"a.png": [DOG_BOX]}

    def test_repeated_names(self, tmp_path: Path) -> None:
        data = one(tmp_path, "2 0.5 0.5 0.25 0.5", yaml="names: [cat, dog, dog]\n")
        assert data.categories == (Category(0, "cat"), Category(1, "dog"))
        assert boxes_of(data) == {"a.png": [DOG_BOX]}
        assert kinds_of(data) == {"repeated_class_name": 1}
        with pytest.raises(ValueError, match="called 'dog': 1 with 1 objects, 2 with 1 objects; rename"):
            one(tmp_path, "2 0.5 0.5 0.25 0.5", DOG, yaml="names: [cat, dog, dog]\n")

    @pytest.mark.parametrize(
        ("yaml", "message"),
        [
            ("names: [cat", "cannot be read as YAML"),
            ("names: [[cat], dog]", "'names' must have a text for each number"),
            ("names: {a: cat}", "'names' must have a text for each number"),
            ("names: []", "'names' must list the class names"),
            ("names: {0: a, 0: b}", "'0' appears twice"),
            ("names: [cat, dog]\nnames: [dog]", "'names' appears twice"),
            ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]", "aliases are not read"),
            ("names: " + "[" * 3000, "cannot be read as YAML"),
            ("names: [cat, dog]\nval: {a: b}", "'val' must be a path or a list of paths"),
            ("names: !!python/object/apply:os.getcwd []", "cannot be read as YAML|'names' must"),
        ],
    )
    def test_faults(self, tmp_path: Path, yaml: str, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            one(tmp_path, DOG, yaml=yaml + "\n")
        assert "\n" not in str(caught.value)
        assert "data.yaml" in str(caught.value)


def test_other_yaml_files_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("train: {steps: 3}\nnames: 3\n")
    (tmp_path / "broken.yaml").write_text("[")
    assert not find_reader("yolo").recognizes(tmp_path)
    put(tmp_path, "images/train/a.png", "labels/train/a.txt", DOG)
    (tmp_path / "pets.yml").write_text("train: images/train\n" + NAMES)
    assert boxes_of(open_data(tmp_path)) == {"a.png": [DOG_BOX]}
