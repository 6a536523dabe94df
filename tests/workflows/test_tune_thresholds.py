"""Thresholds that are tuned, stored in a checkpoint, used by predict and carried by exported files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import boxwright
from boxwright.checkpoints import BEST, read_checkpoint
from boxwright.cli.main import main
from boxwright.detector import Detector
from boxwright.evaluation.operating_points import count_at, find_operating_points
from boxwright.evaluation.threshold_target import Target
from boxwright.exporting.metadata import describe_detector
from boxwright.passport import TrainingData
from boxwright.score_tuning import ScoreTuning
from boxwright.workflows import tune_thresholds as workflow
from boxwright.workflows.observer import Observer
from boxwright_runtime import Runtime
from boxwright_runtime.metadata import Metadata

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(rectangle_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that has learned to detect rectangles."""
    return shutil.copytree(rectangle_run, tmp_path / "run")


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_the_checkpoint_gets_thresholds_and_is_otherwise_the_same(run: Path, rectangles: Path) -> None:
    before, of_file = read_checkpoint(run / BEST), header(run / BEST)
    others = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != BEST}
    result = boxwright.tune_thresholds(run, rectangles, target="precision=0.6")
    assert result.path == run / BEST
    after, now = read_checkpoint(run / BEST), header(run / BEST)
    assert after.pop("tuning") == json.loads(json.dumps(result.tuning.to_dict()))
    tensors = after.pop("model")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in before.pop("model").items())
    assert after == before
    assert {name for name in now if now[name] != of_file.get(name)} == {"tuning", "checksum"}
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != BEST} == others
    assert result.tuning.target == "precision=0.6"
    assert result.tuning.data.num_images == 12
    names = [one.name for one in result.evaluation.data.categories]
    expected = find_operating_points(result.evaluation.matched, names, Target("precision", 0.6))
    assert result.points == expected
    again = boxwright.tune_thresholds(run, rectangles)
    assert boxwright.load(run).tuning == again.tuning
    assert again.tuning.target == "f1"


def test_predictions_above_tuned_thresholds_are_those_that_were_counted(
    run: Path, rectangles: Path, tmp_path: Path
) -> None:
    result = boxwright.tune_thresholds(run, rectangles, target="recall=0.7")
    detector = boxwright.load(run)
    images = rectangles / "images" / "val"
    images = images if images.is_dir() else rectangles / "images"
    predicted = boxwright.predict(detector, images, threshold="tuned", coco=tmp_path / "coco.json")
    everything = boxwright.predict(detector, images, threshold=0.0)
    assert predicted.threshold == result.tuning.thresholds
    assert 0 < predicted.num_detections < everything.num_detections
    for name, one in everything.detections.items():
        least = torch.tensor(result.tuning.thresholds)[one.labels]
        assert torch.equal(predicted.detections[name].scores, one.scores[one.scores >= least])
    assert len(json.loads((tmp_path / "coco.json").read_text())) == predicted.num_detections
    # Of the validation images alone, as many as were counted.
    own = boxwright.evaluate(detector, rectangles)
    above = sum(len(one.above(result.tuning.thresholds)) for one in own.detections.values())
    assert above == sum(point.true_positives + point.false_positives for point in result.points)
    assert (
        count_at(own.matched, ["x"] * len(result.points), result.tuning.thresholds)[0].threshold
        == (result.tuning.thresholds[0])
    )
    some = detector.predict(next(iter(images.glob("*.png"))), threshold="tuned")
    assert len(some) <= len(detector.predict(next(iter(images.glob("*.png")))))


def test_a_detector_gets_them_and_saves_them(run: Path, rectangles: Path, tmp_path: Path) -> None:
    detector = boxwright.load(run)
    result = boxwright.tune_thresholds(detector, rectangles)
    assert result.path is None
    assert detector.tuning == result.tuning
    assert boxwright.load(run).tuning is None
    assert detector.fold().tuning == result.tuning
    for name in ("saved.pt", "saved.safetensors"):
        detector.save(tmp_path / name)
        assert boxwright.load(tmp_path / name).tuning == result.tuning


def tuning_of(detector: Detector) -> ScoreTuning:
    count = len(detector.categories)
    values = tuple((index + 1) / 10 for index in range(count))
    data = TrainingData(name="x", num_images=3)
    return ScoreTuning(target="f1", thresholds=values, temperatures=values, shifts=values, data=data)


def test_exported_files_have_them(run: Path) -> None:
    detector = boxwright.load(run)
    assert describe_detector(detector, profile="bytes", ops="auto").thresholds is None
    detector.tuning = tuning_of(detector)
    metadata = Metadata.from_json(describe_detector(detector, profile="bytes", ops="auto").to_json())
    names = [one.name for one in detector.categories]
    assert metadata.thresholds == dict(zip(names, detector.tuning.thresholds, strict=True))
    assert metadata.tuning == dict.fromkeys(("thresholds", "temperatures", "shifts"), metadata.thresholds)


def test_an_exported_file_predicts_with_them(rectangle_file: Path, rectangles: Path) -> None:
    runtime = Runtime(rectangle_file)
    image = next(iter(sorted((rectangles / "images").rglob("*.png"))))
    with pytest.raises(ValueError, match=r"its thresholds were not tuned: `boxwright tune-thresholds` does it"):
        runtime.predict(image, threshold="tuned")
    everything = runtime.predict(image)
    scores = np.sort(everything.scores)
    names = [one.name for one in runtime.metadata.categories]
    values = [float(scores[len(scores) // 2]), *[0.0] * (len(names) - 1)]
    runtime.metadata = replace(runtime.metadata, tuning={"thresholds": dict(zip(names, values, strict=True))})
    above = runtime.predict(image, threshold="tuned")
    least = np.array(values, dtype=np.float32)[everything.labels]
    np.testing.assert_array_equal(above.scores, everything.scores[everything.scores >= least])
    assert 0 < len(above) < len(everything)
    predicted = boxwright.predict(runtime, image, threshold="tuned")
    assert predicted.num_detections == len(above)


@pytest.mark.slow
def test_a_tuned_model_that_is_exported(run: Path, rectangles: Path, tmp_path: Path, capsys: Capture) -> None:
    """From the checkpoint into the file, and out of it again, by the commands."""
    file = tmp_path / "tuned.onnx"
    assert main(["tune-thresholds", str(run), "--data", str(rectangles), "--target", "recall=0.7"]) == 0
    assert main(["export", str(run), "--out", str(file)]) == 0
    tuning = boxwright.load(run).tuning
    assert tuning is not None
    assert Runtime(file).thresholds() == tuning.thresholds
    capsys.readouterr()
    counts = []
    for model in (run, file):
        out = tmp_path / f"{model.name}.json"
        images = str(rectangles / "images")
        assert (
            main(["predict", str(model), images, "--threshold", "tuned", "--json", str(out), "--out", str(tmp_path)])
            == 0
        )
        counts.append(len(json.loads(out.read_text())))
    assert counts[0] > 0
    assert abs(counts[0] - counts[1]) <= 0.02 * counts[0]
    assert main(["info", str(file)]) == 0
    assert "thresholds: " in capsys.readouterr().out


def test_the_command(run: Path, rectangles: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "tuned.json"
    command = ["tune-thresholds", str(run), "--data", str(rectangles), "--target", "precision=0.9", "--json", str(out)]
    assert main(command) == 0
    printed = " ".join(capsys.readouterr().out.split())
    content = json.loads(out.read_text())
    held_out = content["held_out"]
    assert f"mean over classes: {held_out['mean_f1_tuned']:.3f}, and {held_out['mean_f1_untuned']:.3f}" in printed
    assert f"{held_out['calibration_error_after']:.3f} once they are scaled" in printed
    assert f"stored in {run / BEST}: boxwright predict" in printed
    assert content["tuning"]["target"] == "precision=0.9"
    for point in content["points"]:
        assert f"{point['threshold']:.4g}" in printed
    image = next(iter(sorted((rectangles / "images").rglob("*.png"))))
    arguments = ["predict", str(run), str(image), "--threshold", "tuned", "--out", str(tmp_path / "drawn")]
    assert main(arguments) == 0
    assert main(["info", str(run)]) == 0
    assert "thresholds for precision=0.9:" in capsys.readouterr().out


def test_what_cannot_be_tuned_is_said_and_stays(run: Path, rectangles: Path, tmp_path: Path) -> None:
    before = (run / BEST).read_bytes()
    cases = {
        "target is f1, precision=P or recall=R": (run, "f2"),
        "no such checkpoint, nor folder of a run": (tmp_path / "none", "f1"),
        "is an exported file: tune the model": (tmp_path / "x.onnx", "f1"),
        r"val\.json: thresholds are stored in checkpoints of Boxwright": (
            rectangles / "annotations" / "val.json",
            "f1",
        ),
        "hf:owner/name: thresholds are stored in checkpoints of Boxwright": ("hf:owner/name", "f1"),
    }
    for message, (model, target) in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            boxwright.tune_thresholds(model, rectangles, target=target)
    with pytest.raises(ValueError, match=r"the thresholds of this model were not tuned: `boxwright tune-thresholds`"):
        boxwright.predict(run, rectangles / "images", threshold="tuned")
    assert (run / BEST).read_bytes() == before


def test_a_checkpoint_that_is_replaced_meanwhile_is_left_alone(
    run: Path, rectangles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thresholds would be those of other weights."""
    original = workflow.evaluate

    def evaluate(detector: Detector, *arguments: object, **options: object) -> object:
        boxwright.load(run).save(run / BEST)
        return original(detector, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(workflow, "evaluate", evaluate)
    with pytest.raises(ValueError, match=r"best\.safetensors was replaced while its thresholds were tuned"):
        boxwright.tune_thresholds(run, rectangles, observer=Observer())
    assert boxwright.load(run).tuning is None


def test_damaged_tunings_are_refused() -> None:
    good = ScoreTuning(
        target="f1",
        thresholds=(0.5, 0.6),
        temperatures=(1.0, 2.0),
        shifts=(0.0, -1.0),
        data=TrainingData(name="x", num_images=3),
    ).to_dict()
    assert ScoreTuning.from_dict(good, 2).thresholds == (0.5, 0.6)
    for change, count in (
        ({}, 3),
        ({"thresholds": (0.5, 2.0)}, 2),
        ({"thresholds": (0.5, "x")}, 2),
        ({"thresholds": None}, 2),
        ({"temperatures": (0.0, 1.0)}, 2),
        ({"temperatures": (1.0,)}, 2),
        ({"shifts": (0.0, float("nan"))}, 2),
        ({"target": 3}, 2),
        ({"data": "x"}, 2),
        ({"data": {"name": "x"}}, 2),
    ):
        with pytest.raises(ValueError, match=r"thresholds|temperatures|tuned scores|passport"):
            ScoreTuning.from_dict({**good, **change}, count)
