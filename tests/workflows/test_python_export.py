"""``boxwright.export``: from any model to a file that its runtime runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import boxwright
from boxwright.compose.detectors import build
from boxwright.detector import Detector
from boxwright.exporting import export_file as module
from boxwright.exporting.comparison import DetectionAgreement
from boxwright.exporting.exercise import ExerciseReport
from boxwright.exporting.export_file import ExportedDetector, describe_detector
from boxwright.workflows import export as workflow
from boxwright.workflows.observer import Observer
from boxwright_runtime.runtime import Runtime


class Listener(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(f"note: {line}")

    def announce(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def classifier() -> Detector:
    torch.manual_seed(0)
    return build("resnet18_classifier", num_classes=3, overrides={"backbone.width": 8})


@pytest.fixture
def nothing_exported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Arguments of ``export_file``, which pretends to have written a file in whose images nothing is detected."""
    calls: list[dict[str, object]] = []

    def export_file(detector: Detector, target: Path, **options: object) -> ExportedDetector:
        calls.append({"target": target, **options})
        metadata = describe_detector(detector, profile="bytes", ops="auto")
        return ExportedDetector(target, metadata, ExerciseReport((), DetectionAgreement()), 0)

    monkeypatch.setattr(workflow, "export_file", export_file)
    return calls


def test_a_checkpoint_becomes_a_file(classifier: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    classifier.save("mine.safetensors")
    listener = Listener()
    exported = boxwright.export("mine.safetensors", observer=listener)
    assert exported.path == Path("mine.onnx")
    assert listener.lines == ["exporting to mine.onnx: tracing takes half a minute or more"]
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    expected, actual = classifier.predict(image), Runtime("mine.onnx").predict(image)
    np.testing.assert_allclose(actual.scores, expected.scores, atol=0.01)
    assert exported.metadata.passport is not None
    assert exported.metadata.recipe == boxwright.load("mine.safetensors").recipe.to_dict()


@pytest.mark.parametrize(
    ("options", "name", "form"),
    [
        ({}, "mine.onnx", "onnx"),
        ({"to": "openvino"}, "mine.xml", "openvino"),
        ({"out": "other/file.xml"}, "other/file.xml", "openvino"),
        ({"out": "file.onnx", "input": "float", "ops": "plain"}, "file.onnx", "onnx"),
    ],
)
def test_names_and_forms(
    classifier: Detector,
    nothing_exported: list[dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    name: str,
    form: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    classifier.save("mine.safetensors")
    with pytest.warns(UserWarning, match="the model detects nothing"):
        boxwright.export("mine.safetensors", **options)  # type: ignore[arg-type]
    (call,) = nothing_exported
    assert (call["target"], call["form"]) == (Path(name), form)
    assert call["profile"] == options.get("input", "bytes")
    assert call["ops"] == options.get("ops", "auto")


@pytest.mark.parametrize(
    ("model", "to", "name"),
    [
        ("runs/mine", None, "mine.onnx"),
        ("runs/mine/", "openvino", "mine.xml"),
        ("runs/mine/last.pt", None, "last.onnx"),
        ("hf:PekingU/rtdetr_r50vd", None, "rtdetr_r50vd.onnx"),
        ("hf:PekingU/rtdetr_r50vd@main", "onnx", "rtdetr_r50vd.onnx"),
        ("torchvision:fcos_resnet50_fpn", None, "fcos_resnet50_fpn.onnx"),
        ("runs/v1.2", None, "v1.2.onnx"),
    ],
)
def test_files_are_called_like_the_model(model: str, to: module.FileKind | None, name: str) -> None:
    assert workflow._choose_target(model, to, None) == Path(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "to is onnx or openvino, not 'tflite'"),
        ({"input": "images"}, "input is bytes or float, not 'images'"),
        ({"ops": "all"}, "ops is auto or plain, not 'all'"),
        ({}, "a detector has no name that its file could have: give one with out"),
        ({"out": "file.pt"}, r"file\.pt: the name of a file for onnx ends in \.onnx"),
        ({"out": "file.onnx", "to": "openvino"}, r"file\.onnx: the name of a file for openvino ends in \.xml"),
    ],
)
def test_arguments_that_make_no_sense(classifier: Detector, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boxwright.export(classifier, **options)  # type: ignore[arg-type]


def test_what_stands_there_is_seen_before_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "file.onnx").write_text("mine")
    with pytest.raises(ValueError, match=r"file\.onnx exists already and is not overwritten"):
        boxwright.export("no such model", out=tmp_path / "file.onnx")
