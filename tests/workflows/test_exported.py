"""Exported files through the commands: predicted, measured and described as models are, by the file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import boxwright
from boxwright.cli.main import main
from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation
from boxwright.structures import Category
from boxwright.workflows.exported_facts import FileFacts
from boxwright_runtime import Runtime
from stand_in_export import write_stand_in

Capture = pytest.CaptureFixture[str]

SIZES = ((60, 80), (80, 60), (60, 80), (41, 33), (60, 80), (30, 30), (80, 60))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_stand_in(tmp_path / "model.onnx", masks="box")


def write_set(folder: Path, *, names: dict[int, str], shift: int = 0) -> Path:
    """Write images of one gray, with the objects that the stand-in finds; ids of classes are those of ``names``."""
    (folder / "images").mkdir(parents=True)
    ids, images, annotations = list(names), [], []
    for number, (height, width) in enumerate(SIZES, start=1):
        pixels = np.full((height, width, 3), 30 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for label, (right, bottom) in enumerate(((width, height), (width / 2, height / 2))):
            annotations.append(
                {
                    "id": 2 * number + label,
                    "image_id": number,
                    "category_id": ids[(label + shift) % 2],
                    "bbox": [0, 0, right, bottom],
                    "area": right * bottom,
                    "iscrowd": 0,
                    "segmentation": [[0, 0, right, 0, right, bottom, 0, bottom]],
                }
            )
    categories = [{"id": one, "name": name} for one, name in names.items()]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations").mkdir()
    (folder / "annotations" / "val.json").write_text(json.dumps(document))
    return folder


def data_files(folder: Path) -> boxwright.DataFiles:
    return boxwright.DataFiles(
        annotations={"val": folder / "annotations" / "val.json"}, images={"val": folder / "images"}
    )


NAMES = {3: "quarter", 7: "thing"}
"""In another order than in the file, so that classes have to be matched by name."""


class TestEval:
    @pytest.mark.parametrize("kind", ["onnx", "xml"])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_numbers_are_of_the_file(self, tmp_path: Path, kind: str, workers: int) -> None:
        """Boxes are found to the pixel, classes by their names; where these are exchanged, nothing is right."""
        file = write_stand_in(tmp_path / f"model.{kind}", masks="box")
        right = write_set(tmp_path / "right", names=NAMES, shift=1)
        evaluation = boxwright.evaluate(file, data_files(right), batch_size=2, workers=workers)
        assert isinstance(evaluation, Evaluation)
        assert evaluation.boxes.AP > 0.999
        assert evaluation.masks is not None
        assert evaluation.masks.AP50 > 0.999  # disks in rectangles
        assert evaluation.masks.AP75 < 0.5
        assert [row.name for row in evaluation.boxes.per_class] == ["thing", "quarter"]
        first = evaluation.detections[1]
        assert isinstance(first.boxes, torch.Tensor)
        assert first.boxes.tolist() == [[0, 0, 80, 60], [0, 0, 40, 30]]
        wrong = write_set(tmp_path / "wrong", names=NAMES)
        evaluation = boxwright.evaluate(Runtime(file), data_files(wrong))
        assert isinstance(evaluation, Evaluation)
        assert evaluation.boxes.AP == 0

    def test_the_command(self, file: Path, tmp_path: Path, capsys: Capture) -> None:
        data = write_set(tmp_path / "set", names=NAMES, shift=1)
        arguments = ["--annotations", str(data / "annotations" / "val.json"), "--images", str(data / "images")]
        assert main(["eval", str(file), *arguments, "--json", str(tmp_path / "numbers.json")]) == 0
        assert "thing" in capsys.readouterr().out
        numbers = json.loads((tmp_path / "numbers.json").read_text())
        assert numbers["AP"] == pytest.approx(1)
        assert numbers["segm"]["AP"] < 1
        assert "selection" not in numbers

    def test_other_classes_are_refused(self, file: Path, tmp_path: Path) -> None:
        data = write_set(tmp_path / "set", names={1: "cat", 2: "quarter"})
        with pytest.raises(ValueError, match="cat"):
            boxwright.evaluate(file, data_files(data))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_image_that_is_damaged(self, file: Path, tmp_path: Path, workers: int) -> None:
        data = write_set(tmp_path / "set", names=NAMES)
        pixels = data / "images" / "3.png"
        pixels.write_bytes(pixels.read_bytes()[:-30])
        with pytest.raises(ValueError, match=r"^[^\n]*3\.png cannot be read as an image[^\n]*$"):
            boxwright.evaluate(file, data_files(data), workers=workers)

    def test_classes_of_images(self, tmp_path: Path) -> None:
        """Of a classifier: its likeliest class, and the five."""
        file = write_stand_in(tmp_path / "model.onnx", task="classification")
        for name, values in (("thing", (40, 80, 120)), ("quarter", (200,))):
            (tmp_path / "set" / "val" / name).mkdir(parents=True)
            for value in values:
                Image.new("RGB", (20, 30), (value,) * 3).save(tmp_path / "set" / "val" / name / f"{value}.png")
        evaluation = boxwright.evaluate(file, tmp_path / "set")
        assert isinstance(evaluation, ClassEvaluation)
        assert evaluation.accuracy.top1 == 0.75
        assert evaluation.accuracy.top5 == 1


class TestPredict:
    def test_drawings_and_rows(self, file: Path, tmp_path: Path, capsys: Capture) -> None:
        data, out = write_set(tmp_path / "set", names=NAMES), tmp_path / "drawn"
        arguments = ["predict", str(file), str(data / "images"), "--out", str(out), "--json", str(tmp_path / "x.json")]
        assert main([*arguments, "--threshold", "0.5", "--batch-size", "3"]) == 0
        assert "3 objects in 7 images" in capsys.readouterr().out
        assert sorted(path.name for path in out.iterdir()) == [f"{number}.png" for number in range(1, 8)]
        drawn, image = np.asarray(Image.open(out / "5.png")), np.asarray(Image.open(data / "images" / "5.png"))
        assert drawn.shape == image.shape
        assert (drawn != image).any()
        rows = json.loads((tmp_path / "x.json").read_text())
        assert [row["file_name"] for row in rows] == ["5.png", "6.png", "7.png"]
        assert {(row["category_id"], row["category_name"]) for row in rows} == {(7, "thing")}
        assert rows[0]["bbox"] == [0, 0, 80, 60]
        assert rows[0]["segmentation"]["size"] == [60, 80]

    def test_from_python(self, file: Path) -> None:
        images = [np.full((20, 30, 3), value, dtype=np.uint8) for value in (0, 255)]
        result = boxwright.predict(Runtime(file), images, threshold=0.6)
        nothing, white = result.detections.values()
        assert (len(nothing), len(white)) == (0, 1)
        assert isinstance(white.boxes, torch.Tensor)
        assert result.best_score == 1
        assert result.task == "detection"

    def test_the_likeliest_class(self, tmp_path: Path) -> None:
        file = write_stand_in(tmp_path / "model.xml", task="classification")
        result = boxwright.predict(file, np.full((20, 30, 3), 51, dtype=np.uint8), threshold=0.9)
        assert result.detections["image_0.png"].names == ["thing"]

    def test_images_that_cannot_be_read(self, file: Path, tmp_path: Path, capsys: Capture) -> None:
        data = write_set(tmp_path / "set", names=NAMES)
        (data / "images" / "3.png").write_bytes(b"no image")
        assert main(["predict", str(file), str(data / "images"), "--out", str(tmp_path / "drawn")]) == 2
        assert "1 of 7 images could not be read: " in capsys.readouterr().err
        assert len(list((tmp_path / "drawn").iterdir())) == 6


class TestInfo:
    def test_the_command(self, tmp_path: Path, capsys: Capture) -> None:
        passport = boxwright.build("rtdetr_tiny", categories=[Category(1, "a")]).passport
        path = write_stand_in(
            tmp_path / "model.xml",
            profile="float",
            precision="int8",
            tuning={"thresholds": {"thing": 0.25, "quarter": 0.5}},
            float32_nodes=("a", "b"),
            passport={} if passport is None else passport.to_dict(),
        )
        assert main(["info", str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].endswith("model.xml: detection in OpenVINO, exported by Boxwright 0.3.0")
        assert lines[1].startswith("int8, operators auto, ")
        assert lines[2] == "input: network inputs, and sizes of the images; output: boxes, scores, labels"
        assert lines[3] == "2 nodes stay in float32: a, b"
        assert "  size: shortest side 32 pixels, the longest at most 64; rounded as by detr" in lines
        assert "2 classes: thing, quarter" in lines
        assert "thresholds: thing 0.25, quarter 0.5" in lines

    def test_json(self, file: Path, tmp_path: Path) -> None:
        assert main(["info", str(file), "--json", str(tmp_path / "facts.json")]) == 0
        facts = json.loads((tmp_path / "facts.json").read_text())
        assert (facts["kind"], facts["profile"], facts["masks"]) == ("onnx", "bytes", True)
        assert facts["num_bytes"] == file.stat().st_size
        assert facts["categories"] == [{"id": 7, "name": "thing"}, {"id": 3, "name": "quarter"}]
        assert facts["input"]["image_size"] == 32
        assert isinstance(boxwright.info(file), FileFacts)


ARGUMENTS: dict[str, tuple[list[str], str]] = {
    "device": (["predict", "FILE", "x.png", "--device", "cuda"], "runs on the CPU: device is auto or cpu, not cuda"),
    "options of a recipe": (
        ["predict", "FILE", "x.png", "--input.image_size", "64"],
        "is an exported file, whose options and preprocessing are inside it: input.image_size is for models",
    ),
    "options in eval": (
        ["eval", "FILE", "--data", "set", "--head.num_queries", "3"],
        "is an exported file",
    ),
    "more detections": (["eval", "FILE", "--data", "set", "--max-detections", "300"], "has its own limit"),
    "classes": (["info", "FILE", "--input.image_size", "64"], "has classes and options of its own"),
    "weights": (["train", "rtdetr_tiny", "--data", "set", "--weights", "FILE"], "of which no weights are loaded"),
    "conversion": (["convert", "FILE", "x.safetensors"], "of which no weights are loaded"),
    "nothing there": (["predict", "none.onnx", "x.png"], "there is no file none.onnx"),
    "nothing to measure": (["eval", "none.xml", "--data", "set"], "there is no file none.xml"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_are_not_for_files(
    file: Path, name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    write_set(file.parent / "set", names=NAMES)
    Image.new("RGB", (9, 9)).save("x.png")
    arguments, message = ARGUMENTS[name]
    assert main([str(file) if one == "FILE" else one for one in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("boxwright: error: ")
    assert error.count("\n") == 1


def test_load_says_what_to_do_instead(file: Path) -> None:
    with pytest.raises(ValueError, match=r"is an exported file, of which no weights are loaded: .*Runtime, predict"):
        boxwright.load(file)


@pytest.mark.parametrize("arguments", [{"device": "cuda"}, {"overrides": {"input.image_size": 64}}])
def test_a_runtime_is_what_its_file_is(file: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"model\.onnx is an exported file"):
        boxwright.predict(Runtime(file), np.zeros((9, 9, 3), np.uint8), **arguments)
