"""Every kind of damage to an annotation file is one clear line."""

from __future__ import annotations

from typing import Any

import pytest

from boxwright.data.open import open_data


def _set(key: str, index: int, **values: Any):
    return lambda document: document[key][index].update(values)


def _without(key: str, index: int, field: str):
    return lambda document: document[key][index].pop(field)


BROKEN = {
    "no images key": (lambda d: d.pop("images"), "not a COCO annotation file: it has no 'images'"),
    "no annotations key": (lambda d: d.pop("annotations"), "it has no 'annotations'"),
    "no categories key": (lambda d: d.pop("categories"), "it has no 'categories'"),
    "no images": (lambda d: d["images"].clear(), "'images' is empty"),
    "no categories": (lambda d: d["categories"].clear(), "'categories' is empty"),
    "images an object": (lambda d: d.update(images={}), "'images' must be a list, not an object"),
    "annotations null": (lambda d: d.update(annotations=None), "'annotations' must be a list, not null"),
    "annotation a text": (lambda d: d["annotations"].append("x"), r"annotations\[3\] must be an object"),
    "image null": (lambda d: d["images"].insert(0, None), r"images\[0\] must be an object, not null"),
    "unknown category": (
        _set("annotations", 0, category_id=3),
        r"annotation 1 of image 'a\.png': category_id 3 is not in 'categories'; add",
    ),
    "unknown image": (_set("annotations", 0, image_id=77), "annotation 1: image_id 77 is not in 'images'"),
    "image id a list": (_set("annotations", 0, image_id=[1]), r"'image_id' must be a whole .*, not \[1\]"),
    "category id null": (_set("annotations", 0, category_id=None), "'category_id' .*, not None"),
    "category id a fraction": (_set("annotations", 0, category_id=7.5), "'category_id' .*, not 7.5"),
    "category id true": (_set("annotations", 0, category_id=True), "'category_id' .*, not True"),
    "box of three": (_set("annotations", 2, bbox=[1, 2, 3]), r"annotation 3 of image 'a\.png': bbox .* four"),
    "box of text": (_set("annotations", 2, bbox="1 2 3 4"), "bbox must be four finite numbers"),
    "box with null": (_set("annotations", 2, bbox=[1, 2, None, 4]), "bbox must be four finite numbers"),
    "box with nan": (_set("annotations", 2, bbox=[1, 2, float("nan"), 4]), r"not \[1, 2, nan, 4\]"),
    "box with infinity": (_set("annotations", 2, bbox=[1, 2, float("inf"), 4]), r"not \[1, 2, inf, 4\]"),
    "box with a huge number": (_set("annotations", 2, bbox=[1, 2, 10**400, 4]), "four finite numbers"),
    "box with true": (_set("annotations", 2, bbox=[1, 2, True, 4]), "bbox must be four finite numbers"),
    "box missing": (_without("annotations", 2, "bbox"), "bbox must be four finite numbers .* not None"),
    "area a text": (_set("annotations", 0, area="big"), "area must be a finite number, not 'big'"),
    "crowd of 2": (_set("annotations", 0, iscrowd=2), "iscrowd must be 0 or 1, not 2"),
    "segmentation a text": (_set("annotations", 0, segmentation="x"), "segmentation must be polygons, an RLE or"),
    "mask that is no PNG": (_set("annotations", 0, segmentation="x.jpg"), "or the name of a PNG file, not 'x.jpg'"),
    "mask outside": (_set("annotations", 0, segmentation="../x.png"), "'segmentation' '../x.png' leaves the image"),
    "same image id": (
        _set("images", 2, id=11),
        r"image id 11 occurs more than once, for a\.png and c\.png; make the ids unique",
    ),
    "same category id": (_set("categories", 0, id=7), r"1 category id\(s\) occur more than once: 7"),
    "same category name": (
        _set("categories", 0, name="cat"),
        r"1 category name.* with annotations: 'cat' \(id 7 with 2 ",
    ),
    "category without name": (_without("categories", 1, "name"), r"categories\[1\]: 'name' .* is missing"),
    "category with empty name": (_set("categories", 1, name=" "), r"categories\[1\]: 'name' .* not empty"),
    "image without file name": (_without("images", 1, "file_name"), r"images\[1\]: 'file_name' .* missing"),
}


LEAVING = ["../none.png", "sub\\..\\..\\none.png", "/none.png", "C:\\none.png"]


class TestBadInput:
    @pytest.mark.parametrize("damage", BROKEN)
    def test_broken_document(self, tiny, damage: str) -> None:
        damage_it, message = BROKEN[damage]
        damage_it(tiny.document)
        with pytest.raises(ValueError, match=message) as caught:
            tiny.read()
        assert str(caught.value).startswith(f"{tiny.root}/annotations/train.json")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"line 1, column 1: Expecting value"),
            (b'{"images": [\n  {"id": 1,,}', r"line 2, column 12: "),
            (b"\xff\xfe{}", "not valid JSON: 'utf-8' codec"),
            (b"[" * 100_000, "not valid JSON: "),
            (b"[1, 2]", "it holds a list where an object"),
            (b"3", "it holds a number where an object"),
            (b"{}", "it has no 'categories', only nothing"),
        ],
    )
    def test_file_that_is_not_coco(self, tiny, content: bytes, message: str) -> None:
        file = tiny.write()
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            open_data(None, annotations=file, images=tiny.root / "images")
        assert str(caught.value).startswith(str(file))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", LEAVING)
    def test_names_that_leave_the_folder(self, tiny, name: str) -> None:
        tiny.document["images"][1]["file_name"] = name
        with pytest.raises(
            ValueError, match=r"files of 1 of 3 images in .* not clear: .*none\.png \(leaves the folder"
        ):
            tiny.read()

    def test_missing_files_and_folders(self, tiny) -> None:
        file = tiny.write()
        with pytest.raises(FileNotFoundError, match=r"annotation file .*none\.json does not exist"):
            open_data(None, annotations=tiny.root / "none.json", images=tiny.root / "images")
        with pytest.raises(FileNotFoundError, match="is a folder, not an annotation file"):
            open_data(None, annotations=tiny.root, images=tiny.root / "images")
        with pytest.raises(FileNotFoundError, match=r"image folder .*nowhere does not exist"):
            open_data(None, annotations=file, images=tiny.root / "nowhere")
