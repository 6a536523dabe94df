"""Exports in other precisions, and with a certificate: what is read before, what is left afterward."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import boxwright
from boxwright.cli.main import main
from boxwright.exporting.certificate import find_certificate
from boxwright.exporting.comparison import DetectionAgreement
from boxwright.exporting.exercise import ExerciseReport
from boxwright.exporting.export_file import ExportedDetector
from boxwright.workflows import certified_export
from boxwright.workflows import export as module
from boxwright.workflows.reading import DataFiles
from boxwright.workflows.verification import Verification
from boxwright_runtime.exported_file import read_exported_file
from heard import Heard


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch, rectangle_file: Path) -> Iterator[list[Path]]:
    """Targets of exports in float32, which copy a finished file; and nobody measures speed."""
    targets: list[Path] = []

    def export_file(_: Any, target: Path, **options: Any) -> ExportedDetector:
        assert options["form"] == "onnx"
        targets.append(target)
        shutil.copy(rectangle_file, target)
        report = ExerciseReport((), DetectionAgreement(total=1, num_matched=1))
        return ExportedDetector(target, read_exported_file(target).metadata, report, target.stat().st_size)

    monkeypatch.setattr(module, "export_file", export_file)
    monkeypatch.setattr(certified_export, "_measure_speed", lambda *_: [])
    return targets


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_verified_file(rectangle_run: Path, rectangles: Path, tmp_path: Path) -> None:
    exported = boxwright.export(rectangle_run, out=tmp_path / "x.onnx", precision="fp16", verify=rectangles)
    assert exported.certificate is not None
    assert exported.certificate.is_accepted
    assert exported.certificate.tolerance == 0.5
    assert exported.metadata.precision == "fp16"
    assert exported.size == (tmp_path / "x.onnx").stat().st_size
    assert names(tmp_path) == ["x.onnx", "x.onnx.certificate.json"]
    content = json.loads(find_certificate(tmp_path / "x.onnx").read_text())
    assert content["data"]["num_images"] == 12
    assert content["passport"]["recipe"] == exported.metadata.passport["recipe"]  # type: ignore[index]


def test_a_rejected_file_on_the_command_line(
    rectangle_run: Path, rectangles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Status 2, the tables all the same, and what stood there stays."""
    monkeypatch.chdir(tmp_path)
    Path("x.onnx").write_text("older")
    monkeypatch.setitem(certified_export.TOLERANCES, "fp32", -1.0)
    assert main(["export", str(rectangle_run), "--out", "x.onnx", "--verify", str(rectangles), "--overwrite"]) == 2
    printed = capsys.readouterr()
    assert "REJECTED: AP of the file is 0.00 points below the model's, and may be -1" in " ".join(printed.out.split())
    assert printed.err.splitlines()[-1].endswith("it is kept as x.rejected.onnx")
    assert Path("x.onnx").read_text() == "older"
    assert names(tmp_path) == ["x.onnx", "x.rejected.onnx", "x.rejected.onnx.certificate.json"]


def test_without_verification_the_file_is_said_to_be_unmeasured(
    rectangle_run: Path, rectangles: Path, tmp_path: Path
) -> None:
    """A certificate of what stood there before goes."""
    target, observer = tmp_path / "x.onnx", Heard()
    boxwright.export(rectangle_run, out=target, verify=rectangles)
    assert find_certificate(target).is_file()
    exported = boxwright.export(
        rectangle_run, out=target, precision="int8", calibrate=rectangles, overwrite=True, observer=observer
    )
    assert exported.certificate is None
    assert observer.notes == [f"{target} was not measured in int8: give --verify DATA"]
    assert read_exported_file(target).metadata.precision == "int8"
    assert names(tmp_path) == ["x.onnx"]
    boxwright.export(rectangle_run, out=target, overwrite=True)
    assert read_exported_file(target).metadata.precision == "fp32"


def test_other_tolerances_and_splits(rectangle_run: Path, rectangles: Path, tmp_path: Path) -> None:
    verify = Verification(data=DataFiles(folder=rectangles), split="train", tolerance=3.5)
    exported = boxwright.export(boxwright.load(rectangle_run), out=tmp_path / "x.onnx", verify=verify)
    assert exported.certificate is not None
    assert exported.certificate.tolerance == 3.5
    assert exported.certificate.context["data"]["split"] == "train"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "int8 needs images like those to come"),
        ({"precision": "bf16"}, "onnxruntime has no bfloat16"),
        ({"precision": "fp8"}, "precision is fp32, fp16, bf16, int8, not 'fp8'"),
        ({"verify": "nowhere"}, "nowhere"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_mistakes_come_before_the_work(
    rectangle_run: Path, tmp_path: Path, traced: list[Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        boxwright.export(rectangle_run, out=tmp_path / "x.onnx", **options)
    assert not traced
    assert names(tmp_path) == []


@pytest.mark.parametrize("options", [{"tolerance": -1.0}, {"tolerance": 101.0}, {"most_tries": -1}])
def test_verifications_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tolerance is in points|most_tries is at least 0"):
        Verification(data="x", **options)
