"""Data sets in every format that is written: round trips, what is lost is named, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.annotations import Annotations, ListedImage
from boxwright.data.join import join_images
from boxwright.data.open import list_splits, open_data
from boxwright.data.records import DetectionData
from boxwright.structures import Category
from boxwright.workflows.convert_data import find_writer, list_writers

FORMATS = list_writers()
TRIANGLE = [1.25, 1.5, 9.75, 2.0, 5.5, 8.125]
REVERSED = [12.0, 9.0, 18.0, 9.0, 18.0, 3.0, 12.0, 3.0]
SQUARE = [12.0, 3.0, 18.0, 3.0, 18.0, 9.0, 12.0, 9.0]


def put_images(folder: Path, names: list[str]) -> None:
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (21, 34 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def make(
    folder: Path,
    names: list[str],
    rows: list[tuple[int, int, list[float]]],
    categories: tuple[Category, ...] = (Category(90, "dog"), Category(7, "möwe: grau"), Category(8, "no")),
    **columns: object,
) -> DetectionData:
    """Return data of these images; each row is an image, a label and a box."""
    put_images(folder, [name for name in names if not (folder / name).exists()])
    table = Annotations(
        path=folder,
        image_folders=(folder,),
        categories=categories,
        images=tuple(ListedImage(10 * number + 3, name) for number, name in enumerate(names)),
        image_index=np.array([row[0] for row in rows], dtype=np.int64),
        labels=np.array([row[1] for row in rows], dtype=np.int64),
        bbox_xywh=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        **columns,  # type: ignore[arg-type]
    )
    return join_images(table)


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, DetectionData]:
    boxes = [(0, 1, [1.25, 2.5, 10.1, 7.3]), (0, 0, [0.0, 0.0, 34.0, 21.0]), (2, 1, [1 / 3, 2 / 3, 11.7, 13.9])]
    return {
        "train": make(tmp_path / "source" / "train", ["a.png", "b.png", "sub/a.png"], boxes),
        "val": make(tmp_path / "source" / "val", ["a.png"], [(0, 0, [3.0, 4.0, 5.0, 6.0])]),
    }


def kinds(findings: list) -> set[str]:
    return {finding.kind.name for finding in findings}


def contents(data: DetectionData) -> list[tuple]:
    """Return bytes of the image and the objects of each image, boxes to nine digits, in the order of the bytes."""
    images = []
    for record in data.records:
        names = [data.categories[label].name for label in record.labels.tolist()]
        boxes = np.round(record.bbox_xywh, 9).tolist()
        objects = sorted(zip(names, boxes, record.crowd.tolist(), strict=True))
        images.append((record.read().tobytes(), objects))
    return sorted(images)


@pytest.mark.parametrize("name", FORMATS)
class TestEveryFormat:
    def test_boxes_images_and_classes_come_back(self, splits, name: str, tmp_path: Path) -> None:
        out = tmp_path / "new" / "set"
        find_writer(name).write(splits, out, link=False)
        assert list_splits(out) == ["train", "val"]
        for split, data in splits.items():
            again = open_data(out, split)
            assert contents(again) == contents(data)
            in_order = sorted(data.categories, key=lambda one: one.id) if name == "coco" else data.categories
            assert [one.name for one in again.categories] == [one.name for one in in_order]
            assert [note for note in again.notes if "no annotations here" not in note] == []
        assert sorted(os.listdir(tmp_path / "new")) == ["set"]

    def test_polygons_come_back(self, name: str, tmp_path: Path) -> None:
        rows = [(0, 0, [1.25, 1.5, 8.5, 6.625]), (0, 1, [12.0, 3.0, 6.0, 6.0])]
        data = make(tmp_path / "source", ["a.png", "b.png"], rows, segmentations=([TRIANGLE], [SQUARE]))
        find_writer(name).write({"train": data}, tmp_path / "out", link=True)
        again = open_data(tmp_path / "out")
        assert contents(again) == contents(data)
        parts = [np.round(np.array(one), 9).tolist() for one in again.records[0].segmentations]
        assert parts == [[TRIANGLE], [SQUARE]]

    def test_links_and_copies(self, splits, name: str, tmp_path: Path) -> None:
        source = splits["val"].records[0].path
        for link in (True, False):
            out = tmp_path / f"linked_{link}"
            find_writer(name).write({"val": splits["val"]}, out, link=link)
            (image,) = out.rglob("*.png")
            assert image.read_bytes() == source.read_bytes()
            assert os.path.samefile(image, source) is link

    def test_a_link_leads_to_the_file_itself(self, name: str, tmp_path: Path) -> None:
        put_images(tmp_path / "real", ["r.png"])
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "a.png").symlink_to("../real/r.png")
        data = make(tmp_path / "source", ["a.png"], [])
        find_writer(name).write({"train": data}, tmp_path / "out", link=True)
        (image,) = (tmp_path / "out").rglob("*.png")
        assert not image.is_symlink()

    def test_names_that_clash_are_made_unique(self, name: str, tmp_path: Path) -> None:
        images = ["a.png", "A.png", "a.jpg", "sub/a.png", ".b.png", "c d.png", "e\u0301.png", "\u00e9.png", "n 1.png"]
        data = make(tmp_path / "source", images, [(i, i % 3, [i, 1, 5, 5]) for i in range(len(images))])
        twin = make(tmp_path / "other", ["a.png", "b.png"], [(1, 0, [1, 2, 3, 4])])
        findings = find_writer(name).write({"train": data, "val": twin}, tmp_path / "out", link=False)
        assert contents(open_data(tmp_path / "out", "train")) == contents(data)
        assert contents(open_data(tmp_path / "out", "val")) == contents(twin)
        renamed = [finding for finding in findings if finding.kind.name == "renamed_image"]
        assert len(renamed) >= 2
        names = [path.name.casefold() for path in (tmp_path / "out").rglob("*.png")]
        assert not any(one.startswith(".") for one in names)

    def test_an_image_in_no_file_is_written(self, name: str, tmp_path: Path) -> None:
        pixels = np.random.default_rng(3).integers(0, 256, (8, 9, 3), dtype=np.uint8)
        table = Annotations(
            path=tmp_path,
            image_folders=(tmp_path,),
            categories=(Category(1, "cat"),),
            images=(ListedImage(0, "sample 0", (8, 9), lambda: pixels),),
            image_index=np.zeros(1, dtype=np.int64),
            labels=np.zeros(1, dtype=np.int64),
            bbox_xywh=np.array([[1.0, 2.0, 3.0, 4.0]]),
        )
        find_writer(name).write({"train": join_images(table)}, tmp_path / "out", link=True)
        (record,) = open_data(tmp_path / "out").records
        assert (record.read() == pixels).all()
        assert record.bbox_xywh.tolist() == pytest.approx(np.array([[1, 2, 3, 4]]))

    def test_whole_or_not_at_all(self, splits, name: str, tmp_path: Path, monkeypatch) -> None:
        before = sorted(tmp_path.iterdir())
        splits["val"].records[0].path.unlink()
        with pytest.raises(FileNotFoundError):
            find_writer(name).write(splits, tmp_path / "new" / "deep" / "set", link=False)
        assert sorted(tmp_path.iterdir()) == before

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("shutil.copyfile", interrupt)
        with pytest.raises(KeyboardInterrupt):
            find_writer(name).write(splits, tmp_path / "new" / "set", link=False)
        assert sorted(tmp_path.iterdir()) == before

    def test_nothing_is_overwritten(self, splits, name: str, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        find_writer(name).write(splits, out, link=False)
        with pytest.raises(ValueError, match=r"out is not empty and is not overwritten"):
            find_writer(name).write(splits, out, link=False)
        (tmp_path / "file").write_text("x")
        with pytest.raises(ValueError, match="is a file"):
            find_writer(name).write(splits, tmp_path / "file", link=False)
        for split in ("../up", "", ".", "a/b"):
            with pytest.raises(ValueError, match="cannot be written"):
                find_writer(name).write({split: splits["val"]}, tmp_path / "third", link=False)
        assert not (tmp_path / "third").exists()

    def test_classes_of_other_splits_are_added(self, name: str, tmp_path: Path) -> None:
        cat, dog, cow = Category(1, "cat"), Category(2, "dog"), Category(5, "cow")
        one = make(tmp_path / "one", ["a.png"], [(0, 1, [1, 1, 5, 5])], (cat, dog))
        two = make(tmp_path / "two", ["b.png"], [(0, 0, [1, 1, 5, 5]), (0, 1, [2, 2, 5, 5])], (dog, cow))
        find_writer(name).write({"train": one, "val": two}, tmp_path / "out", link=True)
        assert contents(open_data(tmp_path / "out", "train")) == contents(one)
        assert contents(open_data(tmp_path / "out", "val")) == contents(two)


def test_coco_holds_everything(tmp_path: Path) -> None:
    rle = {"size": [21, 34], "counts": [10, 30, 674]}
    rows = [(1, 0, [1.25, 1.5, 8.5, 6.625]), (0, 2, [-3.0, 2.0, 9.5, 4.0]), (0, 1, [1, 1, 5, 5])]
    data = make(
        tmp_path / "source",
        ["z.png", "a.png"],
        rows,
        segmentations=([TRIANGLE, SQUARE], rle, None),
        crowd=np.array([False, True, False]),
        area=np.array([40.5, 30.0, 25.0]),
        annotation_ids=(2**70, 4, -5),
    )
    findings = find_writer("coco").write({"train": data}, tmp_path / "out", link=True)
    assert findings == []
    again = open_data(tmp_path / "out")
    assert set(again.categories) == set(data.categories)
    for record, expected in zip(again.records, data.records, strict=True):
        assert record.image_id == expected.image_id
        assert record.path.name == expected.path.name
        assert record.annotation_ids == expected.annotation_ids
        assert record.bbox_xywh.tolist() == expected.bbox_xywh.tolist()
        assert record.area.tolist() == expected.area.tolist()
        assert record.crowd.tolist() == expected.crowd.tolist()
        assert list(record.segmentations) == list(expected.segmentations)


@pytest.fixture
def lossy(tmp_path: Path) -> DetectionData:
    """A crowd region with run lengths, an object of two parts, one without mask, and one beyond its image."""
    rle = {"size": [21, 34], "counts": [10, 30, 674]}
    rows = [(0, 0, [0, 0, 9, 9]), (0, 1, [1.25, 1.5, 16.75, 7.5]), (0, 2, [2, 3, 4, 5]), (1, 0, [-4.0, 1.0, 9.0, 9.0])]
    return make(
        tmp_path / "source",
        ["a.png", "b.png"],
        rows,
        segmentations=(rle, [TRIANGLE, REVERSED], None, None),
        crowd=np.array([True, False, False, False]),
        area=np.array([30.0, 66.0, 20.0, 80.0]),
    )


def test_everything_that_yolo_does_not_hold_is_named(lossy: DetectionData, tmp_path: Path) -> None:
    findings = find_writer("yolo").write({"train": lossy}, tmp_path / "out", link=True)
    assert kinds(findings) == {
        "crowd_left_out",
        "joined_parts",
        "box_as_outline",
        "clipped_to_image",
        "numbered_anew",
        "areas_left_out",
    }
    again = open_data(tmp_path / "out")
    assert [len(record.labels) for record in again.records] == [2, 1]
    assert set(again.categories) == set(lossy.categories)
    boxes = [np.round(record.bbox_xywh, 9).tolist() for record in again.records]
    assert boxes == [[[1.25, 1.5, 16.75, 7.5], [2, 3, 4, 5]], [[0, 1, 5, 9]]]
    # The bridge between the parts has no area: 27.09375 + 36.
    assert again.records[0].area.tolist() == pytest.approx([27.09375 + 36, 20])


def test_everything_that_voc_does_not_hold_is_named(lossy: DetectionData, tmp_path: Path) -> None:
    findings = find_writer("voc").write({"train": lossy}, tmp_path / "out", link=True)
    assert kinds(findings) == {
        "crowd_as_difficult",
        "masks_left_out",
        "fractions_of_pixels",
        "numbered_anew",
        "areas_left_out",
    }
    again = open_data(tmp_path / "out")
    assert [record.crowd.tolist() for record in again.records] == [[True, False, False], [False]]
    assert [record.bbox_xywh.tolist() for record in again.records] == [
        record.bbox_xywh.tolist() for record in lossy.records
    ]


@pytest.mark.parametrize("name", ["voc", "yolo"])
def test_class_names_that_would_be_one(name: str, tmp_path: Path) -> None:
    classes = (Category(1, "cat"), Category(2, "cat "))
    data = make(tmp_path / "source", ["a.png"], [(0, 0, [1, 1, 5, 5])], classes)
    with pytest.raises(ValueError, match="'cat' and 'cat ' would have one name here; rename one"):
        find_writer(name).write({"train": data}, tmp_path / "out", link=True)
    classes = (Category(1, "cat\nfish"), Category(2, "dog"))
    data = make(tmp_path / "source", ["a.png"], [(0, 0, [1, 1, 5, 5])], classes)
    findings = find_writer(name).write({"train": data}, tmp_path / "out", link=True)
    assert "changed_class_name" in kinds(findings)
    assert [one.name for one in open_data(tmp_path / "out").categories] == ["cat_fish", "dog"]
