"""Reading data sets in COCO format: numbers of real sets, every layout, every kind of damage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from boxwright.data.open import open_data
from boxwright.data.records import DetectionData, max_objects
from boxwright.structures import Category
from reader_examples import ExampleImage


def write_example(folder: Path, split: str, images: Sequence[ExampleImage]) -> None:
    """Write one split; see ``tests/contracts/test_readers.py``."""
    names = ["cat", "dog"] if split == "train" else ["dog", "cat"]
    objects = [(number, *one) for number, image in enumerate(images) for one in image.objects]
    document = {
        "images": [{"id": 7 * number, "file_name": image.file_name} for number, image in enumerate(images)],
        "annotations": [
            {"id": i, "image_id": 7 * number, "category_id": names.index(name), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for i, (number, name, x1, y1, x2, y2) in enumerate(objects)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(names)],
    }
    for image in images:
        image.save(folder / "images" / image.file_name)
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))


def counts(data: DetectionData) -> tuple[int, int, int, int]:
    """Images, annotations, crowd regions, images without annotations."""
    records = data.records
    return (
        len(records),
        sum(len(record.labels) for record in records),
        sum(int(record.crowd.sum()) for record in records),
        sum(len(record.labels) == 0 for record in records),
    )


class TestRealSets:
    """The numbers are those of the sets' own README files."""

    @pytest.mark.parametrize(
        ("name", "split", "expected", "fullest"),
        [
            ("bccd", "train", (205, 2799, 0, 0), 28),
            ("bccd", "val", (87, 1135, 0, 0), 30),
            ("bccd", "test", (72, 944, 0, 0), 24),
            ("coco_mini", "train", (27, 333, 5, 1), 34),
            ("coco_mini", "val", (25, 213, 2, 0), 24),
            ("deeppcb", "train", (600, 4099, 0, 0), 15),
            ("deeppcb", "val", (300, 1895, 0, 0), 13),
            ("nuclei", "train", (531, 23125, 0, 0), 375),
            ("nuclei", "val", (133, 5861, 0, 0), 313),
        ],
    )
    def test_counts(self, real_data, name: str, split: str, expected: tuple[int, ...], fullest: int) -> None:
        data = open_data(real_data(name), split)
        assert counts(data) == expected
        assert max_objects(data) == fullest
        assert [note for note in data.notes if "dropped" in note or "another size" in note] == []

    def test_objects_per_class_of_bccd(self, real_data) -> None:
        data = open_data(real_data("bccd"), "train", check_images=False)
        labels = Counter(np.concatenate([record.labels for record in data.records]).tolist())
        assert {data.categories[label].name: n for label, n in labels.items()} == {
            "WBC": 214,
            "RBC": 2376,
            "Platelets": 209,
        }

    def test_areas_of_coco_mini(self, real_data) -> None:
        data = open_data(real_data("coco_mini"), "train", check_images=False)
        area = np.concatenate([record.area for record in data.records])
        assert np.histogram(area, [0, 32**2, 96**2, np.inf])[0].tolist() == [179, 113, 41]
        assert len(data.categories) == 80
        assert data.categories[-1] == Category(90, "toothbrush")

    @pytest.mark.parametrize("name", ["coco_mini", "nuclei"])
    def test_agrees_with_pycocotools(self, real_data, name: str) -> None:
        data = open_data(real_data(name), "val", check_images=False)
        oracle = COCO(str(data.source))
        for record in data.records:
            expected = oracle.imgToAnns[record.image_id]
            assert record.annotation_ids == tuple(entry["id"] for entry in expected)
            assert record.bbox_xywh.tolist() == [list(map(float, entry["bbox"])) for entry in expected]
            assert record.area.tolist() == [float(entry["area"]) for entry in expected]
            assert record.crowd.tolist() == [bool(entry["iscrowd"]) for entry in expected]
            assert list(record.segmentations) == [entry["segmentation"] for entry in expected]
            ids = [data.categories[label].id for label in record.labels]
            assert ids == [entry["category_id"] for entry in expected]


class TestRecords:
    def test_everything_of_the_tiny_set(self, tiny) -> None:
        data = tiny.read()
        assert data.categories == (Category(7, "cat"), Category(90, "dog"))
        assert data.source == tiny.root / "annotations/train.json"
        assert data.notes == ()
        assert counts(data) == (3, 3, 1, 1)
        assert max_objects(data) == 2
        a, b, c = data.records
        assert [record.image_id for record in data.records] == [11, 5, 8]
        assert [(record.height, record.width) for record in data.records] == [(30, 40), (50, 20), (16, 16)]
        assert b.path == tiny.root / "images/sub/b.png"
        assert a.labels.tolist() == [1, 0]
        assert a.annotation_ids == (1, 3)
        assert a.bbox_xywh.tolist() == [[1, 2, 10, 5], [30.5, 20.5, 20, 20]]
        assert a.boxes().tolist() == [[1, 2, 11, 7], [30.5, 20.5, 40, 30]]
        assert a.area.tolist() == [50, 99.5]
        assert a.segmentations == (None, None)
        assert b.crowd.tolist() == [True]
        assert b.segmentations == ({"counts": [0, 600, 400], "size": [50, 20]},)
        assert c.boxes().shape == (0, 4)
        assert c.segmentations == ()

    def test_no_segmentation_at_all_is_an_empty_tuple(self, tiny) -> None:
        tiny.document["annotations"][1]["segmentation"] = []
        assert [record.segmentations for record in tiny.read().records] == [(), (), ()]

    def test_a_set_without_annotations_is_read(self, tiny) -> None:
        tiny.document["annotations"] = []
        data = tiny.read()
        assert counts(data) == (3, 0, 0, 3)
        assert max_objects(data) == 0

    def test_null_counts_as_absent(self, tiny) -> None:
        tiny.document["annotations"][0] |= {"area": None, "iscrowd": None, "segmentation": None}
        tiny.document["images"][0] |= {"width": None, "height": None}
        record = tiny.read().records[0]
        assert record.area[0] == 50
        assert not record.crowd[0]

    def test_boxes_without_area_are_dropped_with_a_note(self, tiny) -> None:
        boxes = [[5, 5, 0, 4], [5, 5, 4, -1], [40, 3, 9, 9], [-9, -9, 9, 40], [39.9999999, 3, 1e-9, 5]]
        tiny.document["annotations"] += [
            {"id": 100 + i, "image_id": 11, "category_id": 7, "bbox": box} for i, box in enumerate(boxes)
        ]
        data = tiny.read()
        assert data.records[0].annotation_ids == (1, 3)
        assert counts(data) == (3, 3, 1, 1)
        (note,) = data.notes
        assert note.endswith(
            "train.json: 5 annotations without area inside their image dropped: "
            "a.png (annotation 100 (cat): left 5, top 5, 0 x 4 pixels, image 40 x 30), "
            "a.png (annotation 101 (cat): left 5, top 5, 4 x -1 pixels, image 40 x 30), "
            "a.png (annotation 102 (cat): left 40, top 3, 9 x 9 pixels, image 40 x 30), ..."
        )

    @settings(max_examples=50, deadline=None)
    @given(boxes=st.lists(st.lists(st.floats(-60, 60, width=32), min_size=4, max_size=4), max_size=20))
    def test_kept_boxes_lie_inside_and_have_area(self, tmp_path_factory, boxes: list[list[float]]) -> None:
        folder = tmp_path_factory.mktemp("set")
        Image.new("RGB", (40, 30)).save(folder / "a.png")
        document = {
            "images": [{"id": 1, "file_name": "a.png"}],
            "categories": [{"id": 1, "name": "x"}],
            "annotations": [{"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)],
        }
        (folder / "a.json").write_text(json.dumps(document))
        (record,) = open_data(None, annotations=folder / "a.json", images=folder).records
        x1, y1, x2, y2 = record.boxes().T
        assert bool(((x1 >= 0) & (y1 >= 0) & (x2 <= 40) & (y2 <= 30) & (x1 < x2) & (y1 < y2)).all())
        inside = [
            i
            for i, (x, y, w, h) in enumerate(boxes)
            if min(x + w, 40) - max(x, 0) > 1e-3 and min(y + h, 30) - max(y, 0) > 1e-3
        ]
        assert set(inside) <= set(record.annotation_ids)

    def test_size_is_the_images_own_after_its_rotation(self, tiny) -> None:
        file = tiny.write()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("L", (40, 30)).save(tiny.root / "images/a.png", exif=exif)
        data = open_data(None, annotations=file, images=tiny.root / "images")
        assert (data.records[0].height, data.records[0].width) == (40, 30)
        size, dropped = data.notes
        assert "1 images have another size than the file says" in size
        assert "a.png (file 40x30, image 30x40; sides exchanged: from before the EXIF rotation?)" in size
        assert (
            "inside their image dropped: a.png (annotation 3 (cat): left 30.5, top 20.5, " in dropped
        )  # from x = 30.5 on

    def test_sizes_of_the_file_count_until_an_image_is_read_where_none_is_checked(self, tiny) -> None:
        file = tiny.write()
        Image.new("L", (30, 40)).save(tiny.root / "images/a.png")
        data = open_data(None, annotations=file, images=tiny.root / "images", check_images=False)
        assert (data.records[0].height, data.records[0].width) == (30, 40)
        assert data.notes == ()
        with pytest.raises(ValueError, match=r"a\.png has 30 x 40 pixels, but its annotations are for 40 x 30"):
            data.records[0].read()

    def test_windows_separators_and_byte_order_mark(self, tiny) -> None:
        tiny.document["images"][1]["file_name"] = "sub\\b.png"
        file = tiny.write()
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        assert (
            open_data(None, annotations=file, images=tiny.root / "images").records[1].path
            == tiny.root / "images/sub/b.png"
        )

    def test_crowds_are_no_objects_of_the_fullest_image(self, tiny) -> None:
        tiny.document["annotations"] += [
            {"id": 10 + i, "image_id": 8, "category_id": 7, "bbox": [1, 1, 9, 9], "iscrowd": int(i >= 300)}
            for i in range(310)
        ]
        assert max_objects(tiny.read()) == 300

    def test_progress_counts_to_the_end(self, tiny) -> None:
        calls: list[tuple[int, int]] = []
        tiny.read(progress=lambda done, total: calls.append((done, total)))
        assert calls == [(1, 3), (2, 3), (3, 3)]

    def test_many_annotations_in_any_order_reach_their_images(self, tiny) -> None:
        image_ids = np.random.default_rng(0).choice([11, 5, 8], 5000).tolist()
        tiny.document["annotations"] = [
            {"id": i, "image_id": image_id, "category_id": 7, "bbox": [1, 1, 5, 5]}
            for i, image_id in enumerate(image_ids)
        ]
        for record in tiny.read().records:
            expected = [i for i, image_id in enumerate(image_ids) if image_id == record.image_id]
            assert list(record.annotation_ids) == expected


class TestCategoriesOfAModel:
    def test_matched_by_name_whatever_the_ids(self, tiny) -> None:
        known = (Category(1, "dog"), Category(2, "horse"), Category(3, "cat"))
        data = tiny.read(categories=known)
        assert data.categories == known
        assert data.records[0].labels.tolist() == [0, 2]
        (note,) = data.notes
        assert "2 category ids differ from the model's, matched by name: 'cat' (7 here, 3 there)" in note

    def test_same_categories_need_no_note(self, tiny) -> None:
        data = tiny.read(categories=[Category(7, "cat"), Category(90, "dog")])
        assert data.notes == ()

    def test_unknown_category_with_annotations_is_an_error(self, tiny) -> None:
        with pytest.raises(ValueError, match=r"1 of its categories .* unknown to the model: 'dog'; .* 'cat'"):
            tiny.read(categories=[Category(7, "cat"), Category(90, "hound")])

    def test_unknown_category_without_annotations_is_a_note(self, tiny) -> None:
        tiny.document["categories"].append({"id": 0, "name": "animals"})
        data = tiny.read(categories=[Category(7, "cat"), Category(90, "dog")])
        assert data.records[0].labels.tolist() == [1, 0]
        (note,) = data.notes
        assert "1 categories without annotations are unknown to the model, and ignored: 'animals'" in note

    def test_category_without_annotations_stays_a_class(self, tiny) -> None:
        tiny.document["categories"].append({"id": 0, "name": "animals"})
        data = tiny.read()
        assert data.categories == (Category(0, "animals"), Category(7, "cat"), Category(90, "dog"))
        assert data.records[0].labels.tolist() == [2, 1]
        (note,) = data.notes
        assert "1 categories have no annotations here, and are classes all the same: 'animals'" in note


class TestFindings:
    def test_each_has_kind_place_and_detail(self, tiny) -> None:
        tiny.document["annotations"] += [
            {"id": 2**70, "image_id": 5, "category_id": 7, "bbox": [3, 3, 0, 4]},
            {"id": -4, "image_id": 8, "category_id": 7, "bbox": [1, 1, 4, 4], "area": -16},
        ]
        tiny.document["categories"].append({"id": 0, "name": "animals"})
        tiny.document["images"][2] |= {"width": 17}
        data = tiny.read()
        assert [(finding.kind.name, finding.subject, finding.detail) for finding in data.findings] == [
            ("unused_category", "'animals'", ""),
            ("size_disagrees", "c.png", "file 17x16, image 16x16"),
            ("area_by_size", "c.png", "annotation -4: -16"),
            (
                "empty_box",
                "sub/b.png",
                f"annotation {2**70} (cat): left 3, top 3, 0 x 4 pixels, image 20 x 50",
            ),
        ]
        assert len(data.notes) == 4

    def test_differences_from_a_models_classes(self, tiny) -> None:
        tiny.document["categories"].append({"id": 0, "name": "animals"})
        data = tiny.read(categories=[Category(7, "cat"), Category(91, "dog")])
        assert [(finding.kind.name, str(finding)) for finding in data.findings] == [
            ("unknown_category", "'animals'"),
            ("category_id_differs", "'dog' (90 here, 91 there)"),
        ]
