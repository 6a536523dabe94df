"""Pascal VOC: layouts, coordinates, what is repaired, what is refused."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from boxwright.data.open import find_reader, list_splits, open_data
from boxwright.data.records import DetectionData
from boxwright.structures import Category
from reader_examples import ExampleImage, findings_of, kinds_of
from voc_files import DOG, objects_of, put, write_xml


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    for image in images:
        path = folder / split / image.file_name
        image.save(path)
        write_xml(path.with_suffix(".xml"), image.file_name, (image.height, image.width), image.objects)


class TestRealSet:
    """The 12 defects are those that its README names."""

    @pytest.mark.parametrize(("split", "duplicates", "empty"), [("train", 5, 1), ("val", 2, 1), ("test", 1, 0)])
    def test_the_boxes_of_bccd(self, real_data, split: str, duplicates: int, empty: int) -> None:
        folder = real_data("bccd")
        coco = objects_of(open_data(folder, split, data_format="coco", check_images=False))
        read = open_data(folder / "voc", split, check_images=False)
        voc = objects_of(read)
        assert list(voc) == list(coco)
        more = {name: Counter(voc[name]) - Counter(coco[name]) for name in coco}
        assert sum(counts.total() for counts in more.values()) == duplicates
        assert all(not Counter(coco[name]) - Counter(voc[name]) for name in coco)
        without_area = [note for note in read.notes if "without area" in note]
        assert len(without_area) == empty
        assert [category.name for category in read.categories] == ["Platelets", "RBC", "WBC"]

    def test_the_whole_folder_is_three_formats(self, real_data) -> None:
        assert [
            name
            for name in ("coco", "csv", "labelme", "voc", "yolo")
            if find_reader(name).recognizes(real_data("bccd"))
        ] == [
            "coco",
            "voc",
            "yolo",
        ]


class TestLayouts:
    @pytest.mark.parametrize("root", [".", "VOC2007", "VOCdevkit/VOC2007"])
    @pytest.mark.parametrize("images", ["JPEGImages", "images"])
    def test_lists(self, tmp_path: Path, root: str, images: str) -> None:
        for stem in ("a", "b", "c"):
            put(tmp_path / root, "Annotations", images, stem, DOG)
        lists = tmp_path / root / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        for split, text in {
            "train": "a\nb\n",
            "val": "c",
            "trainval": "a\nb\nc\n",
            "dog_train": "a  1\nb -1\n",
        }.items():
            (lists / f"{split}.txt").write_text(text)
        assert list_splits(tmp_path) == ["train", "val"]
        assert list(objects_of(open_data(tmp_path, "train"))) == ["a.png", "b.png"]
        assert objects_of(open_data(tmp_path, "val")) == {"c.png": [DOG]}

    def test_only_trainval_is_train(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("a  1\n")
        assert list_splits(tmp_path) == ["train"]
        assert objects_of(open_data(tmp_path)) == {"a.png": [DOG]}

    def test_two_years(self, tmp_path: Path) -> None:
        for year in ("2007", "2012"):
            put(tmp_path / f"VOC{year}", "Annotations", "JPEGImages", f"a{year}", DOG)
            (tmp_path / f"VOC{year}" / "ImageSets" / "Main").mkdir(parents=True)
            (tmp_path / f"VOC{year}" / "ImageSets" / "Main" / "train.txt").write_text(f"a{year}\n")
        assert list_splits(tmp_path) == ["train2007", "train2012"]
        assert list(objects_of(open_data(tmp_path, "train2012"))) == ["a2012.png"]

    @pytest.mark.parametrize(
        ("annotations", "images", "splits"),
        [
            ("annotations", "images", ["train"]),
            ("Annotations/train", "images/train", ["train"]),
            ("annotations/xmls", "images", ["train"]),
            ("train/Annotations", "train/JPEGImages", ["train"]),
            ("train/annotations", "train/images", ["train"]),
            ("validate", "validate", ["val"]),
            (".", ".", ["train"]),
            ("images", "images", ["train"]),
        ],
    )
    def test_without_lists(self, tmp_path: Path, annotations: str, images: str, splits: list[str]) -> None:
        put(tmp_path, annotations, images, "a.b", DOG)
        put(tmp_path, annotations, images, "._a.b", DOG)  # as macOS leaves them
        assert list_splits(tmp_path) == splits
        assert objects_of(open_data(tmp_path, splits[0])) == {"a.b.png": [DOG]}

    def test_cvat(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "default.txt").write_text("a\n")
        (tmp_path / "labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nzebra:1,2,3::\ndog:4,5,6::\nan:other:7,8,9::\n"
        )
        data = open_data(tmp_path)
        assert data.categories == (Category(1, "zebra"), Category(2, "dog"), Category(3, "an:other"))
        assert objects_of(data) == {"a.png": [DOG]}

    def test_images_elsewhere(self, tmp_path: Path) -> None:
        put(tmp_path / "set", "Annotations", "../elsewhere", "a", DOG)
        data = open_data(tmp_path / "set", images=tmp_path / "elsewhere")
        assert data.records[0].path == tmp_path / "elsewhere" / "a.png"

    def test_classes_of_all_splits_are_numbered_alike(self, tmp_path: Path) -> None:
        put(tmp_path, "train", "train", "a", DOG)
        put(tmp_path, "valid", "valid", "b", ("cat", 1, 2, 3, 4), ("Mo\u0308we", 1, 2, 5, 6))
        for split in ("train", "val"):
            names = [category.name for category in open_data(tmp_path, split).categories]
            assert names == ["M\u00f6we", "cat", "dog"]


class TestRepairs:
    def one(self, root: Path, *objects: tuple[object, ...], name: str = "") -> DetectionData:
        put(root, "train", "train", "a", *objects, name=name)
        return open_data(root)

    def test_fractions_of_pixels_and_other_forms_of_numbers(self, tmp_path: Path) -> None:
        data = self.one(tmp_path, ("dog", " 1.5\n", "2.25", "1.1e1", "+12."))
        assert objects_of(data) == {"a.png": [("dog", 1.5, 2.25, 11, 12)]}
        assert findings_of(data) == []

    def test_swapped_corners(self, tmp_path: Path) -> None:
        data = self.one(tmp_path, ("dog", 11, 2, 1, 12), ("dog", 1, 12, 11, 2), DOG)
        assert objects_of(data) == {"a.png": [DOG, DOG, DOG]}
        assert kinds_of(data) == {"swapped_corners": 2}
        assert [str(one) for one in findings_of(data)] == [
            "a.xml (object 1: xmin 11 ymin 2 xmax 1 ymax 12)",
            "a.xml (object 2: xmin 1 ymin 12 xmax 11 ymax 2)",
        ]

    def test_difficult_objects_are_crowd_regions(self, tmp_path: Path) -> None:
        data = self.one(tmp_path, (*DOG, "<difficult>1</difficult>"), (*DOG, "<difficult>0</difficult>"))
        assert data.records[0].crowd.tolist() == [True, False]
        assert kinds_of(data) == {"marked_difficult": 1}

    def test_parts_are_no_objects(self, tmp_path: Path) -> None:
        part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        assert objects_of(self.one(tmp_path, (*DOG, part))) == {"a.png": [DOG]}

    @pytest.mark.parametrize(
        "polygon",
        [
            "<polygon><x1>1</x1><y1>2</y1><x2>11</x2><y2>2</y2><x3>11</x3><y3>12</y3></polygon>",
            "<polygon><pt><x>1</x><y>2</y></pt><pt><x>11</x><y>2</y></pt><pt><x>11</x><y>12</y></pt></polygon>",
        ],
    )
    def test_polygons(self, tmp_path: Path, polygon: str) -> None:
        data = self.one(tmp_path, (*DOG, polygon))
        assert list(data.records[0].segmentations) == [[[1, 2, 11, 2, 11, 12]]]
        assert data.records[0].area.tolist() == [50]
        path = tmp_path / "train" / "a.xml"
        path.write_text(path.read_text().replace("<bndbox>", "<other>").replace("</bndbox>", "</other>"))
        assert objects_of(open_data(tmp_path)) == {"a.png": [DOG]}

    def test_an_object_without_box(self, tmp_path: Path) -> None:
        put(tmp_path, "train", "train", "a", DOG, DOG)
        path = tmp_path / "train" / "a.xml"
        path.write_text(path.read_text().replace("bndbox>", "robndbox>", 2))
        data = open_data(tmp_path)
        assert objects_of(data) == {"a.png": [DOG]}
        assert kinds_of(data) == {"object_without_box": 1}

    @pytest.mark.parametrize(("name", "count"), [("other.png", 1), ("a", 0), ("a.jpg", 0), ("x\\y\\a.png", 0), ("", 0)])
    def test_the_image_is_called_like_the_file(self, tmp_path: Path, name: str, count: int) -> None:
        put(tmp_path, "train", "train", "a", DOG)
        write_xml(tmp_path / "train" / "a.xml", name, (20, 30), [DOG])
        data = open_data(tmp_path)
        assert objects_of(data) == {"a.png": [DOG]}
        assert kinds_of(data) == ({"other_image_name": 1} if count else {})

    def test_without_size_or_with_another(self, tmp_path: Path) -> None:
        for size in ("<size/>", "<size><width>0</width><height>x</height></size>", ""):
            put(tmp_path, "train", "train", "a", DOG)
            path = tmp_path / "train" / "a.xml"
            start, rest = path.read_text().split("<size>")
            path.write_text(start + size + rest.split("</size>")[1])
            data = open_data(tmp_path)
            assert (data.records[0].height, data.records[0].width) == (20, 30)
            assert data.notes == ()

    def test_what_is_left_out_is_named(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        put(tmp_path, "Annotations", "JPEGImages", "n 1", DOG)
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n\nn 1\na\n")
        data = open_data(tmp_path)
        assert list(objects_of(data)) == ["a.png", "n 1.png"]
        assert kinds_of(data) == {"listed_without_annotation_file": 1, "image_listed_twice": 1}
        shutil.rmtree(tmp_path / "ImageSets")
        (tmp_path / "Annotations" / "a.xml").unlink()
        assert kinds_of(open_data(tmp_path)) == {"image_without_annotation_file": 1}

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "gb18030"])
    def test_declared_encodings(self, tmp_path: Path, encoding: str) -> None:
        name = "M\u00f6we" if encoding != "gb18030" else "\u6d77\u9e25"
        put(tmp_path, "train", "train", "a", (name, 1, 2, 11, 12))
        path = tmp_path / "train" / "a.xml"
        declared = encoding.removesuffix("-sig")
        path.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>{path.read_text()}'.encode(encoding))
        assert objects_of(open_data(tmp_path)) == {"a.png": [(name, 1, 2, 11, 12)]}

    def test_a_wrong_encoding_is_read_as_far_as_it_matters(self, tmp_path: Path) -> None:
        put(tmp_path, "train", "train", "a", DOG)
        path = tmp_path / "train" / "a.xml"
        text = path.read_text()
        path.write_bytes(b"\n " + text.replace("<size>", "<folder>Gr\u00fcn</folder><size>").encode("latin-1"))
        data = open_data(tmp_path)
        assert objects_of(data) == {"a.png": [DOG]}
        assert kinds_of(data) == {"wrong_encoding": 1}
        path.write_bytes(text.replace("dog", "M\u00f6we").encode("latin-1"))
        with pytest.raises(ValueError, match=r"a\.xml: object 1: its class .* is not in the encoding"):
            open_data(tmp_path)


class TestFaults:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", r"a\.xml is empty"),
            (" \n", r"a\.xml is empty"),
            ("<annotation><object>", r"a\.xml is not valid XML: .*; is it cut off\?"),
            ("<annotation>&nbsp;</annotation>", "undefined entity"),
            ("<annotations><image/></annotations><annotation >", "not valid XML"),
            ("<x><annotation ></annotation></x>", r"its root is <x>, not <annotation>"),
            ("<annotation><object/></annotation>", "object 1: it has no <name>"),
            ("<annotation>" + "<a>" * 200 + "</a>" * 200 + "</annotation>", "nested deeper than 64 levels"),
        ],
    )
    def test_files(self, tmp_path: Path, content: str, message: str) -> None:
        put(tmp_path, "train", "train", "a", DOG)
        put(tmp_path, "train", "train", "b", DOG)
        (tmp_path / "train" / "a.xml").write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            open_data(tmp_path, data_format="voc")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("value", ["", "nan", "inf", "1_0", "1,5", "1e999", "9" * 401, "0x10", "\u0663"])
    def test_numbers(self, tmp_path: Path, value: str) -> None:
        put(tmp_path, "train", "train", "a", DOG, ("dog", value, 2, 11, 12))
        with pytest.raises(ValueError, match=r"a\.xml: object 2: <xmin> must be a finite number, not "):
            open_data(tmp_path)

    def test_all_faults_are_counted(self, tmp_path: Path) -> None:
        for stem in "abc":
            put(tmp_path, "train", "train", stem, ("dog", "x", 2, 11, 12))
        with pytest.raises(ValueError, match=r"a\.xml: object 1: .*; and 2 more, the next: .*b\.xml: object 1: "):
            open_data(tmp_path)

    def test_entities_are_not_expanded_or_fetched(self, tmp_path: Path) -> None:
        put(tmp_path, "train", "train", "a", DOG)
        secret = tmp_path / "secret.txt"
        secret.write_text("secret")
        path = tmp_path / "train" / "a.xml"
        text = path.read_text()
        laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "lol"}">' for i in range(10))
        for doctype in (
            f"<!DOCTYPE annotation [{laughs}]>",
            f'<!DOCTYPE annotation [<!ENTITY l9 SYSTEM "{secret.as_uri()}">]>',
            f'<!DOCTYPE annotation SYSTEM "{secret.as_uri()}">',
            '<!DOCTYPE annotation [<!ENTITY % p SYSTEM "http://localhost:9/x"> %p;]>',
        ):
            for encoding in ("utf-8", "utf-16"):
                path.write_bytes((doctype + text.replace("dog", "&l9;")).encode(encoding))
                before = time.perf_counter()
                with pytest.raises(ValueError, match=r"a\.xml: its DOCTYPE declares entities or names") as caught:
                    open_data(tmp_path, data_format="voc")
                assert "secret" not in str(caught.value).replace(str(tmp_path), "")
                assert time.perf_counter() - before < 5
        path.write_text("<!DOCTYPE annotation>" + text)
        assert objects_of(open_data(tmp_path)) == {"a.png": [DOG]}

    def test_lists_that_are_no_text(self, tmp_path: Path) -> None:
        put(tmp_path, "Annotations", "JPEGImages", "a", DOG)
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\x00a")
        with pytest.raises(ValueError, match=r"train\.txt is no list of images"):
            open_data(tmp_path)

    def test_a_changed_file_is_read_again(self, tmp_path: Path) -> None:
        put(tmp_path, "train", "train", "a", DOG)
        assert objects_of(open_data(tmp_path)) == {"a.png": [DOG]}
        write_xml(tmp_path / "train" / "a.xml", "a.png", (20, 30), [("dog", 1, 2, 11, 13)])
        os.utime(tmp_path / "train" / "a.xml", ns=(1, 1))
        assert objects_of(open_data(tmp_path)) == {"a.png": [("dog", 1, 2, 11, 13)]}


def test_a_folder_that_cannot_be_listed_is_not_recognized(tmp_path: Path) -> None:
    assert not find_reader("voc").recognizes(tmp_path / "absent")
    (tmp_path / "Annotations").write_text("a file")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.xml").mkdir()
    os.mkfifo(tmp_path / "train" / "b.xml")
    assert not find_reader("voc").recognizes(tmp_path)
