"""Every layout of a COCO-style folder is found; what is not there is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxwright.data.open import list_splits, open_data
from boxwright.data.readers._coco_layouts import find_all_files


class TestLayouts:
    @pytest.mark.parametrize(
        ("annotations", "images"),
        [
            ("annotations/train.json", "images"),
            ("annotations/train.json", "images/train"),
            ("annotations/train.json", "train"),
            ("annotations/train.json", "."),
            ("annotations/instances_train2017.json", "train2017"),
            ("annotations/instances_train2014.json", "images/train2014"),
            ("annotations/instances_train2017.json", "images"),
            ("annotations/instances_train.json", "train"),
            ("annotations/train_coco.json", "images"),
            ("annotations/train_labels.json", "images"),
            ("annotations/coco_train.json", "images/train"),
            ("annotations/instances_default.json", "images"),
            ("annotations/instances_default.json", "images/default"),
            ("annotations/instances_Train.json", "images/Train"),
            ("annotations/instances.json", "images"),
            ("annotations/annotations.json", "img"),
            ("train/_annotations.coco.json", "train"),
            ("train/_annotations.coco.json", "train/images"),
            ("train/annotations.json", "train/images"),
            ("train/labels.json", "train/data"),
            ("train/annotations/instances_default.json", "train/images/default"),
            ("_annotations.coco.json", "."),
            ("annotations.json", "images"),
            ("annotations.json", "."),
            ("labels.json", "data"),
            ("result.json", "images"),
            ("instances_default.json", "."),
            ("via_export_coco.json", "."),
            ("train.json", "train"),
            ("instances_train2017.json", "train2017"),
        ],
    )
    def test_found(self, tiny, annotations: str, images: str) -> None:
        tiny.write(annotations, images)
        assert list_splits(tiny.root) == ["train"]
        data = open_data(tiny.root, "train")
        assert data.source == tiny.root / annotations
        assert data.records[0].path == tiny.root / images / "a.png"
        assert len(data.records) == 3

    @pytest.mark.parametrize(
        "annotations",
        [
            "valid/_annotations.coco.json",
            "annotations/valid.json",
            "annotations/instances_valid.json",
            "annotations/instances_validation.json",
            "annotations/validate.json",
            "annotations/dev_coco.json",
            "valid/annotations.json",
            "validation.json",
        ],
    )
    def test_valid_serves_val(self, tiny, annotations: str) -> None:
        tiny.write(annotations, "valid")
        assert list_splits(str(tiny.root)) == ["val"]
        for split in ("val", "valid"):
            assert open_data(tiny.root, split).records[0].path == tiny.root / "valid/a.png"

    def test_order_of_splits_and_files_of_other_tasks(self, tiny) -> None:
        for name in ("test", "val", "train", "extra", "captions_train2017", "person_keypoints_val2017"):
            tiny.write(f"annotations/{name}.json")
        assert list_splits(tiny.root) == ["train", "val", "test", "extra"]

    def test_splits_come_before_a_file_of_all_images(self, tiny) -> None:
        for name in ("all", "instances_default", "val", "train_coco", "train"):
            tiny.write(f"annotations/{name}.json")
        tiny.write("annotations.json")
        assert list_splits(tiny.root) == ["train", "val"]
        assert open_data(tiny.root, "train").source.name == "train.json"

    def test_label_studios_file_names(self, tiny) -> None:
        names = ["../../label-studio/data/upload/1/a.png", "/data/local-files/?d=x%2Fsub/b.png", "images\\1/c.png"]
        for image, name in zip(tiny.document["images"], names, strict=True):
            image["file_name"] = name
        tiny.write("result.json", "images")
        data = open_data(tiny.root, "train")
        assert [record.path.relative_to(tiny.root).as_posix() for record in data.records] == [
            "images/a.png",
            "images/sub/b.png",
            "images/c.png",
        ]
        assert [one.kind.name for one in data.findings] == [
            "file_name_last_parts",
            "file_name_url",
            "file_name_last_parts",
        ]

    @pytest.mark.parametrize(
        "name", ["annotations.json", "labels.json", "annotations/a.json", "train/annotations.json"]
    )
    @pytest.mark.parametrize("content", ["", "{}", "[1]", '{"shapes": [], "images": []}', '{"labels": {"a": 1}}'])
    def test_other_json_files_are_not_recognized(self, tmp_path: Path, name: str, content: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        assert find_all_files(tmp_path) == {}

    def test_year_asked_for_and_several_years(self, tiny) -> None:
        tiny.write("annotations/instances_train2017.json", "train2017")
        assert open_data(tiny.root, "train2017").source.name == "instances_train2017.json"
        tiny.write("annotations/instances_train2014.json", "train2014")
        assert list_splits(tiny.root) == ["train2014", "train2017"]
        assert open_data(tiny.root, "train2014").records[0].path == tiny.root / "train2014/a.png"
        with pytest.raises(ValueError, match=r"no split 'train'.* its splits are train2014, train2017"):
            open_data(tiny.root, "train")

    def test_file_names_that_begin_with_the_image_folder(self, tiny) -> None:
        for image in tiny.document["images"]:
            image["file_name"] = "images/" + image["file_name"]
        tiny.write()
        assert open_data(tiny.root, "train").records[0].path == tiny.root / "images/a.png"

    def test_explicit_paths(self, tiny) -> None:
        file = tiny.write("odd/place.json", "elsewhere")
        data = open_data(None, annotations=file, images=tiny.root / "elsewhere")
        assert data.records[0].path == tiny.root / "elsewhere/a.png"
        tiny.write("train/labels.json", "train")
        assert open_data(None, annotations=tiny.root / "train/labels.json").source.name == "labels.json"
        with pytest.raises(ValueError, match="give a data folder, or an annotation file"):
            open_data(None)

    def test_explicit_images_with_the_layouts_annotations(self, tiny) -> None:
        tiny.write("annotations/train.json", "elsewhere")
        data = open_data(tiny.root, "train", images=tiny.root / "elsewhere")
        assert data.records[0].path == tiny.root / "elsewhere/a.png"

    def test_missing_split_says_what_is_there(self, tiny) -> None:
        tiny.write("annotations/val.json")
        tiny.write("annotations/train.json")
        with pytest.raises(ValueError, match="no split 'test'") as caught:
            open_data(tiny.root, "test")
        message = str(caught.value)
        assert "annotations/test.json, annotations/instances_test*.json and test/_annotations" in message
        assert message.endswith("its splits are train, val")

    def test_missing_empty_and_foreign_folders(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"data folder .*nowhere does not exist"):
            open_data(tmp_path / "nowhere", "train")
        with pytest.raises(ValueError, match="is empty"):
            open_data(tmp_path, "train")
        (tmp_path / "notes.txt").write_text("no data")
        with pytest.raises(
            ValueError,
            match=r"no annotations of a known format; it holds notes\.txt \(1 files: 1 \.txt\); data for detection is",
        ):
            open_data(tmp_path, "train")
        with pytest.raises(ValueError, match=r"notes\.txt is a file; give the data folder"):
            list_splits(tmp_path / "notes.txt")
