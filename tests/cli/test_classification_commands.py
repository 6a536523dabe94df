"""A classifier from drawn images to a detector: draw, crop, train, resume, eval, predict, and its backbone."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import boxwright
from boxwright.checkpoints import read_checkpoint
from boxwright.cli.main import main
from boxwright.detector import Detector
from boxwright.training.log import read_log
from boxwright.training.run import WEIGHTS
from boxwright.workflows.validation import Validation
from boxwright_runtime.images import read_image
from equality import assert_equal

Capture = pytest.CaptureFixture[str]

RECIPE: dict[str, Any] = {
    "backbone": {"name": "resnet_vd", "depth": 18, "width": 8, "levels": ["c5"]},
    "neck": "identity",
    "head": {"name": "classifier"},
    "input": {"image_size": 32, "resize": "center_crop"},
    "augment": {"zoom_out": 0, "iou_crop": 0, "resized_crop": [0.5, 1.0], "rand_augment": [1, 9]},
    "train": {
        "steps": 6,
        "batch_size": 4,
        "lr": 0.05,
        "schedule": {"evaluations": 2},
        "optimizer": {"name": "sgd"},
        "batches": {"multi_scale": 0},
        "runtime": {"device": "cpu", "precision": "float32"},
    },
}


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Path:
    """The objects of the drawn set, as a data set for classification; not to be written to."""
    out = tmp_path_factory.mktemp("crops") / "set"
    assert main(["crop", "--data", str(drawn), "--out", str(out), "--min-size", "1"]) == 0
    return out


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, crops: Path) -> Path:
    """The folder of a finished run of a classifier; not to be written to."""
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    assert main(["train", str(folder / "tiny.yaml"), "--data", str(crops), "--out", str(folder / "run")]) == 0
    return folder / "run"


def error_of(capsys: Capture, *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("boxwright: error: ")
    return lines[-1].removeprefix("boxwright: error: ")


def test_draw_and_crop_say_what_they_wrote(tmp_path: Path, capsys: Capture) -> None:
    drawn, crops = tmp_path / "drawn", tmp_path / "crops"
    size = ["--train", "3", "--val", "2", "--image-size", "64"]
    assert main(["draw", "--out", str(drawn), *size]) == 0
    assert capsys.readouterr().out == f"3 images to train on and 2 held out, in {drawn}\n"
    assert main(["crop", "--data", str(drawn), "--out", str(crops), "--min-size", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(crops / "train"), str(crops / "val")]
    for split, line in zip(("train", "val"), lines, strict=True):
        written = len(list((crops / split).rglob("*.png")))
        assert re.match(rf"{written} images \(", line.partition(": ")[2])
    assert "objects below 20 pixels left out" in "".join(lines)
    assert "is not empty and is not overwritten" in error_of(capsys, "crop", "--data", drawn, "--out", crops)
    for option, value in (("--min-size", 0), ("--margin", "inf"), ("--margin", -1)):
        error = error_of(capsys, "crop", "--data", drawn, "--out", tmp_path / "x", option, value)
        assert error.startswith("margin is from 0 to 10 and min_size at least 1 pixel")
    error = error_of(capsys, "crop", "--data", crops, "--out", tmp_path / "x")
    assert error.startswith(f"{crops}: no annotations of any split; what is cut is a data set for detection")
    assert not (tmp_path / "x").exists()


def test_crop_looks_at_the_classes_of_all_splits_first(drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    data, out = tmp_path / "data", tmp_path / "crops"
    shutil.copytree(drawn, data)
    file = data / "annotations" / "val.json"
    document = json.loads(file.read_text())
    for category, name in zip(document["categories"], ("A:B", "a/b"), strict=False):
        category["name"] = name
    file.write_text(json.dumps(document))
    error = error_of(capsys, "crop", "--data", data, "--out", out)
    assert error == f"{file}: classes 'A:B' and 'a/b' have no folder name of their own; rename one"
    assert not out.exists()


def test_crop_takes_explicit_paths(drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    def written(*options: object) -> dict[str, int]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        assert main(["crop", "--out", str(out), "--min-size", "1", *map(str, options)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition(":")[0] for line in lines] == [str(path) for path in sorted(out.iterdir())]
        return {path.name: len(list(path.rglob("*.png"))) for path in out.iterdir()}

    whole = written("--data", drawn)
    files = {split: drawn / "annotations" / f"{split}.json" for split in ("train", "val")}
    val = ("--val-annotations", files["val"], "--val-images", drawn / "images")
    assert written(*val) == {"val": whole["val"]}
    assert written("--train-annotations", files["train"], "--train-images", drawn / "images", *val) == whole
    swapped = written("--data", drawn, "--val-annotations", files["train"], "--val-images", drawn / "images")
    assert swapped == {"train": whole["train"], "val": whole["train"]}
    error = error_of(capsys, "crop", "--out", tmp_path / "x", "--train-images", drawn / "images")
    assert error.startswith("which data set? give --data DIR, or --train-annotations FILE and --train-images DIR")
    assert not (tmp_path / "x").exists()


def test_a_run_is_measured_by_top_1(classifier: Path) -> None:
    rows = [row for row in read_log(classifier) if row["kind"] == "eval"]
    assert [row["step"] for row in rows] == [3, 6]
    progress = read_checkpoint(classifier / "last.pt")["progress"]
    assert (progress["measure"], progress["best"]) == ("top-1", max(row["top1"] for row in rows))
    assert boxwright.load(classifier).task == "classification"


def test_eval_says_top_1_and_top_5(classifier: Path, crops: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "numbers.json"
    assert main(["eval", str(classifier), "--data", str(crops), "--json", str(out)]) == 0
    metrics = json.loads(out.read_text())
    best = max(row["top1"] for row in read_log(classifier) if row["kind"] == "eval")
    assert metrics["top1"] == pytest.approx(best, abs=1e-6)
    assert metrics["num_images"] == len(list((crops / "val").rglob("*.png")))
    assert len(metrics["per_class"]) == 6
    assert capsys.readouterr().out.splitlines()[0].split() == ["images", "top-1", "top-5"]


def test_predict_lists_classes_and_draws_the_likeliest(
    classifier: Path, crops: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = next(iter(sorted((crops / "val").rglob("*.png"))))
    assert main(["predict", str(classifier), str(image), "--threshold", "0", "--json", "detections.json"]) == 0
    rows = json.loads(Path("detections.json").read_text())
    assert len(rows) == 5
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert len({row["category_name"] for row in rows}) == 5
    assert capsys.readouterr().out == "5 classes of 1 image, drawn in predictions, as JSON in detections.json\n"
    assert Path("predictions", image.name).is_file()


@pytest.mark.parametrize("threshold", ["0.25", "1"])
def test_the_likeliest_class_needs_no_score(
    classifier: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: str
) -> None:
    """Of six classes hardly told apart none reaches the threshold; what is drawn does not depend on it."""
    monkeypatch.chdir(tmp_path)
    image = next(iter(sorted((crops / "val").rglob("*.png"))))
    rows, drawings = {}, {}
    for least in ("0", threshold):
        command = ["predict", str(classifier), str(image), "--out", least, "--json", f"{least}.json"]
        assert main([*command, "--threshold", least]) == 0
        rows[least] = json.loads(Path(f"{least}.json").read_text())
        drawings[least] = np.asarray(Image.open(Path(least, image.name)))
    first, *others = rows["0"]
    assert rows[threshold] == [first, *(row for row in others if row["score"] >= float(threshold))]
    assert len(rows[threshold]) < 5
    np.testing.assert_array_equal(drawings[threshold], drawings["0"])
    height, width, _ = (original := read_image(image)).shape
    assert (drawings["0"][:height, :width] != original).any()


@pytest.mark.parametrize("begins", [(), ("classifier",)], ids=["fresh", "with weights"])
def test_a_resumed_run_is_the_unbroken_one(
    classifier: Path,
    crops: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    begins: tuple[str, ...],
) -> None:
    """RandAugment draws from a library's own source of chance, and the weights of another run are only a beginning."""
    weights = ["--backbone.weights", str(classifier)] if begins else []
    command = ["train", str(classifier.parent / "tiny.yaml"), "--data", str(crops), *weights, "--out"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*command, str(whole)]) == 0
    evaluated = Validation.__call__

    def interrupted(self: Validation, detector: Detector, limit: int | None = None) -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        return evaluated(self, detector, limit)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "__call__", interrupted)
        assert main([*command, str(broken)]) == 130
    assert read_checkpoint(broken / "last.pt")["progress"]["step"] < 6
    torch.rand(7)
    capsys.readouterr()
    assert main([*command, str(broken), "--resume"]) == 0
    assert "goes on as it began" not in capsys.readouterr().err
    one, other = (read_checkpoint(run / "last.pt") for run in (whole, broken))
    assert_equal(one["model"], other["model"])
    assert (broken / WEIGHTS).exists() == bool(begins)


def test_images_of_no_class_measure_nothing(classifier: Path, crops: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(crops / "train", tmp_path / "set" / "train")
    (tmp_path / "set" / "val").mkdir()
    shutil.copy(next((crops / "val").rglob("*.png")), tmp_path / "set" / "val" / "a.png")
    command = ["train", classifier.parent / "tiny.yaml", "--data", tmp_path / "set", "--out", tmp_path / "run"]
    assert main([*map(str, command), "--train.steps", "1"]) == 0
    printed = capsys.readouterr().err
    assert "note: there is no split val with class folders (val/CLASS/*.jpg), so that nothing is measured" in printed
    assert "boxwright eval" not in printed


def test_weights_of_a_run_that_came_to_nothing_are_not_noted(
    classifier: Path, crops: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ["train", classifier.parent / "tiny.yaml", "--data", crops, "--out", tmp_path / "run"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / WEIGHTS).write_text("{}")
    assert main([str(argument) for argument in command]) == 0
    assert not (tmp_path / "run" / WEIGHTS).exists()
    capsys.readouterr()


def test_its_backbone_begins_a_detector(
    classifier: Path, trained: Path, drawn: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Other levels, frozen norms: tensors that fit are loaded, and counted."""
    out = tmp_path / "run"
    command = ["train", str(trained.parent / "tiny.yaml"), "--data", str(drawn), "--out", str(out)]
    begin = ["--backbone.weights", str(classifier), "--backbone.norm", "frozen", "--backbone.frozen_stages", "5"]
    assert main([*command, *begin, "--train.steps", "1", "--train.schedule.evaluations", "1"]) == 0
    printed = capsys.readouterr().err
    stored = read_checkpoint(classifier / "best.safetensors")["model"]
    expected = {name for name in stored if name.startswith("backbone.") and not name.endswith("num_batches_tracked")}
    assert f"backbone from {classifier / 'best.safetensors'}: {len(expected)} tensors loaded" in printed
    assert "skipped" not in printed
    assert "new" not in printed
    noted = json.loads((out / WEIGHTS).read_text())
    assert {f"backbone.{name}" for name in noted["loaded"]} == expected
    assert [*noted["skipped"], *noted["new"]] == []
    trained = read_checkpoint(out / "last.pt")["model"]
    for name in expected:
        torch.testing.assert_close(trained[name], stored[name], rtol=0, atol=0)
    assert "weights" not in read_checkpoint(out / "last.pt")["recipe"]["backbone"]
    capsys.readouterr()
    assert main([*command, "--resume", "--backbone.weights", str(tmp_path / "other")]) == 0
    began = classifier / "best.safetensors"
    note = f"note: the run goes on as it began, with weights of {began}, not those of {tmp_path / 'other'}\n"
    assert note in capsys.readouterr().err


def test_tensors_that_do_not_fit_are_listed(
    classifier: Path, trained: Path, drawn: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ["train", str(trained.parent / "tiny.yaml"), "--data", str(drawn), "--out", str(tmp_path / "run")]
    short = ["--train.steps", "1", "--train.schedule.evaluations", "1"]
    other = ["--backbone.depth", "34", "--backbone.levels", "c3,c4"]
    assert main([*command, *other, "--backbone.weights", str(classifier), *short]) == 0
    printed = capsys.readouterr().err
    assert re.search(r"  \d+ skipped, of which there are none here by that name: \S+", printed)
    assert re.search(r"  \d+ new, not in that run: \S+", printed)
    assert "normalized" not in printed
    shutil.rmtree(tmp_path / "run")
    images = ["--input.mean", "0.1,0.2,0.3", "--input.std", "1,1,1"]
    assert main([*command, *images, "--backbone.weights", str(classifier), *short]) == 0
    printed = capsys.readouterr().err
    assert "note: that run normalized its images otherwise:\n" in printed
    assert "  mean 0.0,0.0,0.0 became 0.1,0.2,0.3: --input.mean 0.0,0.0,0.0\n" in printed
    assert "std" not in printed.partition("otherwise:")[2]


def test_bad_input(classifier: Path, crops: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    recipe = classifier.parent / "tiny.yaml"
    out = ["--out", tmp_path / "run"]
    error = error_of(capsys, "train", recipe, "--data", drawn, *out)
    assert error.startswith(f"{drawn}: no annotations for classification; it looks like coco, which is for")
    error = error_of(capsys, "train", "rtdetr_tiny", "--data", crops, *out)
    assert error.startswith(
        f"{crops}: no annotations for detection; it looks like class_folders, which is for classification: choose a "
        "model for classification, or another folder; data for detection is one of: COCO: annotations/train.json"
    )
    error = error_of(capsys, "train", recipe, "--train-annotations", drawn / "annotations" / "train.json", *out)
    assert "train.json: class_folders has no annotation files: give a data folder alone (Folders of classes" in error
    error = error_of(capsys, "train", recipe, "--data", crops, *out, "--augment.iou_crop", "0.5")
    assert error == (
        "for classification, set augment.iou_crop to 0 (it looks for objects, and a classifier's are whole images)"
    )
    error = error_of(capsys, "eval", classifier, "--data", crops, "--max-detections", "200")
    assert error == f"--max-detections is for detectors, and {classifier} is for classification"
    error = error_of(capsys, "demo", "--recipe", recipe, "--out", tmp_path / "demo")
    assert error.startswith(f"the demo shows a detector, and {recipe} is for classification")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "demo").exists()


def test_images_of_classifiers_are_not_mixed(crops: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    command = ["train", tmp_path / "tiny.yaml", "--data", crops, "--out", tmp_path / "run"]
    error = error_of(capsys, *command, "--augment.mosaic", "0.5", "--augment.copy_blend", "1")
    assert error == (
        "for classification, set augment.mosaic, augment.copy_blend to 0 (a classifier's image is of one class)"
    )
    assert not (tmp_path / "run").exists()


def test_options_for_classifiers_are_refused_by_detectors(
    trained: Path, drawn: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ["train", trained.parent / "tiny.yaml", "--data", drawn, "--out", tmp_path / "run"]
    error = error_of(capsys, *command, "--augment.rand_augment", "2,9", "--input.resize", "center_crop")
    assert error == (
        "for detection, set input.resize to square or shortest_side (center_crop hides the rim of images), and "
        "augment.rand_augment to 0,0 (it turns images without their boxes)"
    )


def test_backbone_weights_that_are_none(
    classifier: Path, trained: Path, drawn: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ["train", trained.parent / "tiny.yaml", "--data", drawn, "--out", tmp_path / "run"]
    error = error_of(capsys, *command, "--backbone.weights", tmp_path / "nowhere.pt")
    assert error.startswith(f"{tmp_path / 'nowhere.pt'}: no such file or folder; a model is the folder of a run")
    narrow = ["--backbone.width", "16", "--backbone.weights", classifier]
    error = error_of(capsys, *command, *narrow)
    assert error.startswith(f"{classifier / 'best.safetensors'}: nothing of its backbone (resnet_vd) fits this one")
    assert error_of(capsys, *command, "--backbone.weights").startswith("argument --backbone.weights: expected one")


def test_a_report_shows_accuracies(classifier: Path, crops: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(classifier), "--data", str(crops), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert {"Training", "Classes", "Confusion", "Calibration", "Worst images", "Data"} <= set(
        re.findall(r"<h2>([^<]*)</h2>", page)
    )
    top1 = json.loads(accuracies(classifier, crops, tmp_path).read_text())["top1"]
    assert f'<span class="name">top1</span><b>{top1:.3f}</b>' in page
    assert "circle as " in page or "triangle as " in page  # notes of images whose class is wrong


def accuracies(classifier: Path, crops: Path, folder: Path) -> Path:
    assert main(["eval", str(classifier), "--data", str(crops), "--json", str(folder / "numbers.json")]) == 0
    return folder / "numbers.json"
