"""``boxwright export``: what is typed arrives, and what was done is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boxwright.cli.main import main
from boxwright.exporting.comparison import DetectionAgreement
from boxwright.exporting.exercise import ExerciseReport, ImageBatch
from boxwright.exporting.export_file import ExportedDetector
from boxwright.structures import Category
from boxwright.workflows import export as module
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.metadata import Metadata

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Arguments of the function, which writes nothing."""
    made: list[dict[str, Any]] = []

    def export(model: str, **options: Any) -> ExportedDetector:
        made.append({"model": model, **options})
        agreement = DetectionAgreement(
            total=1200, num_matched=1197, num_cut=3, box_difference=2e-5, score_difference=3e-6
        )
        metadata = Metadata(
            version="0",
            task="detection",
            categories=(Category(0, "a"),),
            input_format=InputFormat(),
            profile=options["input"],
        )
        report = ExerciseReport((ImageBatch(2, 480, 640),), agreement)
        return ExportedDetector(Path("mine.onnx"), metadata, report, 12_345_678)

    monkeypatch.setattr(module, "export", export)
    # A model that is not there is an error before.
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return made


def test_what_was_done_is_said(calls: list[dict[str, Any]], capsys: Capture) -> None:
    assert main(["export", "runs/mine"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mine.onnx (12.3 MB) takes bytes of RGB images of any size, in fp32",
        "ran on images of 2 x 480 x 640: 1,197 of 1,200 detections agree, boxes to 2.0e-05 of their size, "
        "scores to 3.0e-06, 3 near-ties where the list ends",
    ]
    (call,) = calls
    assert (call["to"], call["out"], call["input"], call["ops"], call["overwrite"]) == (
        None,
        None,
        "bytes",
        "auto",
        False,
    )


def test_options_arrive(calls: list[dict[str, Any]], capsys: Capture) -> None:
    typed = "export runs/mine --to openvino --out a.xml --input float --ops plain --overwrite --head.eval_layers 3"
    assert main(typed.split()) == 0
    assert "mine.onnx (12.3 MB) takes network inputs and the sizes of their images" in capsys.readouterr().out
    (call,) = calls
    assert (call["to"], call["out"], call["input"], call["ops"], call["overwrite"]) == (
        "openvino",
        "a.xml",
        "float",
        "plain",
        True,
    )
    assert call["overrides"] == {"head.eval_layers": "3"}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("export", "the following arguments are required: MODEL"),
        ("export runs/mine --to tflite", "argument --to: invalid choice: 'tflite'"),
        ("export runs/mine --input images", "argument --input: invalid choice: 'images'"),
        ("export runs/mine --overwrit", "unknown option --overwrit; did you mean --overwrite?"),
        ("export runs/nothing", "runs/nothing: no such file or folder"),
    ],
)
def test_what_makes_no_sense(
    typed: str, message: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(typed.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert not list(tmp_path.iterdir())
