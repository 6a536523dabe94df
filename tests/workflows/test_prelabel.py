"""Labels by a detector: data sets that are read back, files of labeling tools, and what is uncertain."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import boxwright
from boxwright.cli.main import main
from boxwright.data.open import open_data
from boxwright.structures import Category, Decoded
from boxwright.workflows.label_imports import LabeledFile, Prelabel, list_label_studio_tasks, write_cvat
from boxwright.workflows.prelabel import SCORES_FILE
from boxwright_runtime.masks import encode_rle
from passing_detector import gray, make_detector


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of 60 x 40 pixels whose scores are 0.8, with a part of 0.4, and 0.2, with a part of 0.1."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, value in (("bright.png", 0.8), ("more/dark.png", 0.2)):
        Image.fromarray(gray(value)).save(folder / name)
    return folder


class TestDataSets:
    @pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
    def test_labels_are_read_back(self, to: str, photos: Path, tmp_path: Path) -> None:
        labeled = boxwright.prelabel(make_detector(), photos, tmp_path / "out", to=to, threshold=0.3)  # type: ignore[arg-type]
        assert (labeled.num_objects, labeled.num_uncertain) == (2, 1)
        data = open_data(tmp_path / "out", "train")
        objects = {record.path.name: record.bbox_xywh for record in data.records}
        dark = "more_dark.png" if to == "voc" else "dark.png"  # whose images are in one folder
        assert sorted(objects) == ["bright.png", dark]
        assert np.abs(objects["bright.png"] - [[0, 0, 60, 40], [0, 0, 30, 20]]).max() <= 0.5
        assert len(objects[dark]) == 0
        assert [one.name for one in data.categories] == ["thing"]

    def test_each_label_has_its_score_beside(self, photos: Path, tmp_path: Path) -> None:
        boxwright.prelabel(make_detector(), photos, tmp_path / "out", threshold=0.3, margin=0.2)
        rows = [json.loads(line) for line in (tmp_path / "out" / SCORES_FILE).read_text().splitlines()]
        assert [(row["annotation_id"], row["uncertain"]) for row in rows] == [(1, False), (2, True)]
        assert [row["score"] for row in rows] == pytest.approx([0.8, 0.4], abs=1e-3)
        document = json.loads((tmp_path / "out/annotations/train.json").read_text())
        assert [one["id"] for one in document["annotations"]] == [1, 2]
        assert document["categories"] == [{"id": 7, "name": "thing"}]

    def test_masks_become_segmentations(self) -> None:
        # Through the records that are written: those of the drawn image are a square of 3 x 2.
        from boxwright.workflows.prelabel import _make_records

        mask = np.zeros((40, 60), dtype=np.bool_)
        mask[5:8, 10:12] = True
        one = Prelabel(Category(7, "thing"), (10.0, 5.0, 12.0, 8.0), 0.9, False, encode_rle(mask))
        (record,) = _make_records([LabeledFile(Path("a.png"), "a.png", 40, 60, [one])], [Category(7, "thing")])
        assert record.area.tolist() == [6.0]
        assert record.segmentations[0]["size"] == [40, 60]


def test_an_object_is_labeled_once(photos: Path, tmp_path: Path) -> None:
    """The second detection is nearly the first, with an IoU of 0.9."""
    detector = make_detector()

    def decode(output: Tensor) -> Decoded:
        b, _, h, w = output.shape
        boxes = torch.tensor([[0, 0, w, h], [0, 0, 0.9 * w, h]]).repeat(b, 1, 1)
        scores = output.mean((1, 2, 3))[:, None] * torch.tensor([1.0, 0.5])
        return Decoded(boxes, scores, torch.zeros(b, 2, dtype=torch.long), torch.ones(b, 2, dtype=torch.bool))

    detector.head.decode = decode  # type: ignore[assignment]
    labeled = boxwright.prelabel(detector, photos, tmp_path / "out", threshold=0.3)
    assert (labeled.num_objects, labeled.num_repeated) == (1, 1)
    assert labeled.images[0].objects[0].score == pytest.approx(0.8, abs=1e-3)


class TestThresholds:
    def test_without_tuned_ones_it_is_said(self, photos: Path, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="were not tuned: labels are detections of a score of 0.3"):
            labeled = boxwright.prelabel(make_detector(), photos, tmp_path / "out")
        assert labeled.num_objects == 2

    def test_tuned_is_an_error_where_they_were_not(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="tune-thresholds"):
            boxwright.prelabel(make_detector(), photos, tmp_path / "out", threshold="tuned")
        assert not (tmp_path / "out").exists()


class TestLabelingTools:
    def test_label_studio_has_percents_of_the_image(self, photos: Path, tmp_path: Path) -> None:
        target = tmp_path / "tasks.json"
        boxwright.prelabel(make_detector(), photos, target, to="label_studio", threshold=0.3)
        tasks = json.loads(target.read_text())
        assert [task["data"]["image"] for task in tasks] == [
            "/data/local-files/?d=bright.png",
            "/data/local-files/?d=more/dark.png",
        ]
        whole, part = tasks[0]["predictions"][0]["result"]
        assert whole["value"] == {
            "x": 0,
            "y": 0,
            "width": 100,
            "height": 100,
            "rotation": 0,
            "rectanglelabels": ["thing"],
        }
        assert (part["value"]["width"], part["value"]["height"]) == pytest.approx((50, 50))
        assert (whole["original_width"], whole["original_height"]) == (60, 40)
        assert "meta" not in whole
        assert part["meta"] == {"text": ["uncertain"]}
        assert tasks[1]["predictions"][0]["result"] == []

    def test_images_outside_of_the_root(self, photos: Path) -> None:
        image = LabeledFile(photos / "bright.png", "bright.png", 40, 60, [])
        assert list_label_studio_tasks([image], photos.parent, "m")[0]["data"]["image"].endswith("?d=photos/bright.png")
        with pytest.raises(ValueError, match=r"bright.png is outside of .*more"):
            list_label_studio_tasks([image], photos / "more", "m")

    def test_cvat_has_boxes_and_attributes(self, photos: Path, tmp_path: Path) -> None:
        target = tmp_path / "labels.xml"
        boxwright.prelabel(make_detector(), photos, target, to="cvat", threshold=0.3)
        root = ET.fromstring(target.read_text())
        assert [image.attrib["name"] for image in root.findall("image")] == ["bright.png", "more/dark.png"]
        boxes = root.findall("image/box")
        assert [[float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")] for box in boxes] == [
            [0, 0, 60, 40],
            [0, 0, 30, 20],
        ]
        assert [box.find("attribute[@name='uncertain']").text for box in boxes] == ["false", "true"]  # type: ignore[union-attr]
        assert [label.findtext("name") for label in root.findall("meta/task/labels/label")] == ["thing"]

    @pytest.mark.parametrize("first", [False, True])
    def test_cvat_masks_are_rows_of_their_rectangle(self, first: bool) -> None:
        mask = np.zeros((9, 12), dtype=np.bool_)
        mask[2:4, 3:6] = [[first, True, False], [True, True, True]]
        one = Prelabel(Category(1, "a & b"), (3.0, 2.0, 6.0, 4.0), 0.9, False, encode_rle(mask))
        root = ET.fromstring(write_cvat([LabeledFile(Path("a"), "a<b.png", 9, 12, [one])], [Category(1, "a & b")]))
        element = root.find("image/mask")
        assert element is not None
        assert element.attrib["rle"] == ("0, 2, 1, 3" if first else "1, 1, 1, 3")
        assert [element.attrib[key] for key in ("left", "top", "width", "height")] == ["3", "2", "3", "2"]
        assert element.attrib["label"] == "a & b"


class TestCommand:
    def test_images_that_cannot_be_read_are_told_after_the_others(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("boxwright.workflows.prelabel.load_predictor", lambda *_, **__: make_detector())
        (photos / "broken.png").write_bytes(b"no image")
        model = tmp_path / "model.onnx"
        model.write_bytes(b"")
        arguments = ["prelabel", str(model), str(photos), "--out", str(tmp_path / "out"), "--threshold", "0.3"]
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert "2 labels of 2 images, 1 of them uncertain" in printed.out
        assert "1 of 3 images could not be read" in printed.err
        assert main(arguments) == 2
        assert "is not empty and is not overwritten" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--margin", "2"], "margin is between 0 and 1, not 2"),
            (["--threshold", "-1"], "threshold is between 0 and 1, or tuned, not -1"),
            (["--to", "yolo9"], "--to: invalid choice: 'yolo9'"),
        ],
    )
    def test_wrong_options(
        self, options: list[str], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = tmp_path / "model.onnx"
        model.write_bytes(b"")
        assert main(["prelabel", str(model), str(photos), "--out", str(tmp_path / "out"), *options]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
