"""Values of COCO-like files in other forms are read as they are meant where that is clear, each form with a finding."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from boxwright.data.findings import Finding
from boxwright.structures import Category


def kinds(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.kind.name for finding in findings]


def update(key: str, index: int, **values: Any):
    return lambda document: document[key][index].update(values)


def convert_ids(form):
    """Give all ids of the document another form."""

    def convert(document: Any) -> None:
        for entry in document["images"] + document["categories"]:
            entry["id"] = form(entry["id"])
        for entry in document["annotations"]:
            entry |= {key: form(entry[key]) for key in ("id", "image_id", "category_id")}

    return convert


def rename_file_name(document: Any) -> None:
    for entry in document["images"]:
        entry["filename"] = entry.pop("file_name")


SAME = {
    "ids as fractions": (convert_ids(float), "id as fraction"),
    "ids as texts": (convert_ids(str), "image_id as text"),
    "ids as texts of fractions": (convert_ids(lambda one: f"{one}.0"), "category_id as text"),
    "only image_id": (update("annotations", 0, image_id="11.0"), "image_id as text"),
    "iscrowd true": (update("annotations", 1, iscrowd=True), "iscrowd as bool"),
    "iscrowd text": (update("annotations", 1, iscrowd="1"), "iscrowd as text"),
    "iscrowd fraction": (update("annotations", 1, iscrowd=1.0), "iscrowd as float"),
    "isCrowd": (update("annotations", 1, iscrowd=0, isCrowd=1), "isCrowd, a mark of crowd regions"),
    "crowd": (update("annotations", 1, iscrowd=None, crowd=True), "crowd, a mark of crowd regions"),
    "ignore": (update("annotations", 1, iscrowd=0, ignore=1), "ignore, a mark of crowd regions"),
    "no ignore": (update("annotations", 0, ignore="0"), "ignore as text"),
    "not crowd": (update("annotations", 0, iscrowd="false"), "iscrowd as text"),
    "box of texts": (update("annotations", 0, bbox=["1", "2.0", " 10", "5"]), "numbers of bbox as text"),
    "box in a text": (update("annotations", 0, bbox="[1, 2.0, 10, 5]"), "bbox as text"),
    "box as object": (update("annotations", 0, bbox={"x": 1, "y": 2, "width": 10, "height": 5}), "bbox as object"),
    "area as text": (update("annotations", 2, area="99.5"), "area as text"),
    "sizes as texts": (update("images", 0, width="40", height="30.0"), "width as text"),
    "sizes as fractions": (update("images", 0, width=40.0, height=30.0), "height as fraction"),
    "sizes that are none": (update("images", 0, width="wide", height=30), "no size, ignored"),
    "sizes of zero": (update("images", 0, width=0, height=0), "no size, ignored"),
    "filename": (rename_file_name, "filename in place of file_name"),
    "file name with a backslash": (update("images", 1, file_name="sub\\b.png"), "file sub/b.png"),
}


class TestForms:
    @pytest.mark.parametrize("what", SAME)
    def test_read_as_the_same(self, tiny, what: str) -> None:
        expected = tiny.read()
        change, form = SAME[what]
        change(tiny.document)
        data = tiny.read()
        assert data.categories == expected.categories
        for record, other in zip(data.records, expected.records, strict=True):
            assert (record.image_id, record.path.name) == (other.image_id, other.path.name)
            assert record.annotation_ids == other.annotation_ids
            assert record.labels.tolist() == other.labels.tolist()
            assert record.bbox_xywh.tolist() == other.bbox_xywh.tolist()
            assert record.area.tolist() == other.area.tolist()
            assert record.crowd.tolist() == other.crowd.tolist()
        assert any(form in f"{finding.subject} {finding.detail}" for finding in data.findings), data.findings

    def test_a_form_is_one_finding_with_its_number(self, tiny) -> None:
        for entry in tiny.document["annotations"]:
            entry["image_id"] = float(entry["image_id"])
        (finding,) = tiny.read().findings
        assert (finding.subject, finding.detail) == ("image_id as fraction", "3 times, the first 11.0")

    @pytest.mark.parametrize("value", [2, -1, "yes", [], {}, 0.5, float("nan"), "2"])
    @pytest.mark.parametrize("key", ["iscrowd", "ignore", "crowd", "isCrowd"])
    def test_other_marks_are_refused(self, tiny, key: str, value: Any) -> None:
        tiny.document["annotations"][0][key] = value
        with pytest.raises(ValueError, match=rf"annotation 1 of image 'a\.png': {key} must be 0 or 1, not "):
            tiny.read()

    @pytest.mark.parametrize("value", ["64.5", "", " ", None, [1], "1e3", "0x10", "٣", "9" * 401, float("inf"), True])
    def test_other_category_ids_are_refused(self, tiny, value: Any) -> None:
        tiny.document["annotations"][0]["category_id"] = value
        with pytest.raises(
            ValueError, match=r"annotation 1 of image 'a\.png': 'category_id' must be a whole number, not"
        ):
            tiny.read()

    @pytest.mark.parametrize("number", [2**53 + 1, 2**63 + 5, -7, 10**300])
    def test_ids_of_any_size(self, tiny, number: int) -> None:
        for entry in tiny.document["images"] + tiny.document["annotations"]:
            entry["id"] += number
        for entry in tiny.document["annotations"]:
            entry["image_id"] += number
        data = tiny.read()
        assert [record.image_id for record in data.records] == [11 + number, 5 + number, 8 + number]
        assert data.records[0].annotation_ids == (1 + number, 3 + number)
        assert data.findings == ()

    def test_a_collision_after_reading_is_an_error(self, tiny) -> None:
        tiny.document["images"][1]["id"] = "11"
        with pytest.raises(ValueError, match=r"image id 11 occurs more than once, for a\.png and sub/b\.png"):
            tiny.read()


class TestIds:
    def test_repeated_annotation_ids_are_renumbered(self, tiny) -> None:
        for entry in tiny.document["annotations"]:
            entry["id"] = 1
        data = tiny.read()
        assert data.records[0].annotation_ids == (1, 3)
        assert data.records[1].annotation_ids == (2,)
        (finding,) = data.findings
        assert finding.kind.name == "annotations_renumbered"
        assert finding.detail == "2 of 3, ids 1"

    @pytest.mark.parametrize("value", [None, "a1-b2", "missing"])
    def test_annotations_without_a_number_get_one(self, tiny, value: Any) -> None:
        tiny.document["annotations"][2]["id"] = value
        if value == "missing":
            tiny.document["annotations"][2].pop("id")
        data = tiny.read()
        assert data.records[0].annotation_ids == (1, 3)
        assert kinds(data.findings) == ["value_converted"]

    def test_image_ids_that_are_texts_are_numbered(self, tiny) -> None:
        texts = {11: "a-b", 5: "c", 8: 8}
        for entry in tiny.document["images"]:
            entry["id"] = texts[entry["id"]]
        for entry in tiny.document["annotations"]:
            entry["image_id"] = texts[entry["image_id"]]
        data = tiny.read()
        assert [record.image_id for record in data.records] == [9, 10, 8]
        assert [len(record.labels) for record in data.records] == [2, 1, 0]
        (finding,) = data.findings
        assert finding.detail == "2 times, the first 'a-b'"

    def test_an_file_listed_twice_with_one_id_counts_once(self, tiny) -> None:
        tiny.document["images"].append(dict(tiny.document["images"][0]))
        data = tiny.read()
        assert [record.image_id for record in data.records] == [11, 5, 8]
        (finding,) = data.findings
        assert (finding.kind.name, finding.subject, finding.detail) == ("repeated_image_entry", "a.png", "id 11")

    def test_an_file_listed_twice_with_two_ids_stays_twice(self, tiny) -> None:
        tiny.document["images"].append({"id": 99, "file_name": "images/a.png"})
        data = tiny.read()
        assert [record.image_id for record in data.records] == [11, 5, 8, 99]
        assert kinds(data.findings) == ["file_name_prefix", "file_listed_twice"]


class TestBoxes:
    def test_polygons_give_a_box_that_is_missing(self, tiny) -> None:
        entry = tiny.document["annotations"][0]
        entry["segmentation"] = [[1, 2, 11, 2, 11, 7], [3, 3, 4, 4, 5, 4]]
        del entry["bbox"]
        data = tiny.read()
        assert data.records[0].bbox_xywh[0].tolist() == [1, 2, 10, 5]
        (finding,) = data.findings
        assert finding.subject == "annotations without bbox, whose polygons give it"

    @pytest.mark.parametrize(
        "polygons", [[], [[1, 2, 3]], [[1, 2, 3, 4, 5, None]], [1], {"counts": [1], "size": [1, 1]}]
    )
    def test_nothing_else_gives_a_box(self, tiny, polygons: Any) -> None:
        tiny.document["annotations"][0] |= {"bbox": None, "segmentation": polygons}
        with pytest.raises(ValueError, match=r"annotation 1 of image 'a\.png': bbox must be four finite numbers"):
            tiny.read()

    @pytest.mark.parametrize(
        "box",
        [{"x": 1, "y": 2, "w": 3}, {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}, "[1, 2, 3]", "[1, 2", [[1, 2, 3, 4]]],
    )
    def test_boxes_that_are_not_clear(self, tiny, box: Any) -> None:
        tiny.document["annotations"][0]["bbox"] = box
        with pytest.raises(ValueError, match="bbox must be four finite numbers"):
            tiny.read()

    def test_one_polygon_that_is_not_in_a_list(self, tiny) -> None:
        tiny.document["annotations"][0]["segmentation"] = [1, 2, 11, 2, 11, 7]
        data = tiny.read()
        assert data.records[0].annotation_ids == (1, 3)
        assert "one polygon" in data.findings[0].subject


def roboflow(names: list[str], above: str) -> list[dict[str, Any]]:
    """Categories as Roboflow writes them: the first names the super-category of the others."""
    first = {"id": 0, "name": above, "supercategory": "none"}
    return [first, *({"id": i, "name": name, "supercategory": above} for i, name in enumerate(names, start=1))]


class TestCategories:
    @pytest.fixture
    def exported(self, tiny):
        for entry in tiny.document["annotations"]:
            entry["category_id"] = {90: 2, 7: 1}[entry["category_id"]]
        return tiny

    @pytest.mark.parametrize("above", ["animals", "cat", "dog"])
    def test_roboflows_dummy_is_no_class(self, exported, above: str) -> None:
        exported.document["categories"] = roboflow(["cat", "dog"], above)
        data = exported.read()
        assert data.categories == (Category(1, "cat"), Category(2, "dog"))
        assert data.records[0].labels.tolist() == [1, 0]
        (finding,) = data.findings
        assert (finding.kind.name, finding.subject, finding.detail) == ("dummy_category", repr(above), "id 0")

    @pytest.mark.parametrize(
        "change",
        [
            {"id": 5},
            {"supercategory": "root"},
            {"name": "other"},
        ],
    )
    def test_only_by_that_rule(self, exported, change: dict[str, Any]) -> None:
        exported.document["categories"] = roboflow(["cat", "dog"], "animals")
        exported.document["categories"][0] |= change
        assert len(exported.read().categories) == 3

    def test_an_annotated_one_is_a_class(self, exported) -> None:
        exported.document["categories"] = roboflow(["cat", "dog"], "animals")
        exported.document["annotations"][0]["category_id"] = 0
        data = exported.read()
        assert [category.name for category in data.categories] == ["animals", "cat", "dog"]
        assert data.records[0].labels.tolist() == [0, 1]

    def test_alone_it_is_a_class(self, exported) -> None:
        exported.document["categories"] = roboflow([], "cat")
        for entry in exported.document["annotations"]:
            entry["category_id"] = 0
        assert exported.read().categories == (Category(0, "cat"),)

    @pytest.mark.parametrize("name", ["cat", " cat", "cat\n", "café"])
    def test_a_name_twice_is_merged_where_one_is_empty(self, tiny, name: str) -> None:
        name_here = unicodedata.normalize("NFC", name)
        tiny.document["categories"][1]["name"] = unicodedata.normalize("NFD", name_here.strip())
        for new_id in (3, 95):
            tiny.document["categories"].append({"id": new_id, "name": name_here})
        data = tiny.read()
        assert data.categories == (Category(3, name_here.strip()), Category(90, "dog"))
        assert data.records[0].labels.tolist() == [1, 0]
        merged = [finding for finding in data.findings if finding.kind.name == "category_merged"]
        assert [finding.detail for finding in merged] == ["id 7, merged into id 3", "id 95, merged into id 3"]

    def test_a_name_twice_with_annotations_is_an_error(self, tiny) -> None:
        tiny.document["categories"][0]["name"] = " cat"
        with pytest.raises(
            ValueError, match=r"annotations: 'cat' \(id 7 with 2 annotations, id 90 with 1 annotations\)"
        ):
            tiny.read()

    def test_a_category_listed_twice_counts_once(self, tiny) -> None:
        tiny.document["categories"].append(dict(tiny.document["categories"][0]))
        data = tiny.read()
        assert len(data.categories) == 2
        assert kinds(data.findings) == ["repeated_category_entry"]

    def test_splits_agree_where_only_one_has_all_classes(self, exported) -> None:
        exported.document["categories"] = [*roboflow(["cat", "dog"], "animals"), {"id": 9, "name": "cat "}]
        full = exported.read()
        exported.document["annotations"] = []
        assert exported.read().categories == full.categories
