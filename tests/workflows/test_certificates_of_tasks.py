"""Certificates from a run to a file, of a detector with masks and of a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

import boxwright
from boxwright.cli.main import main
from boxwright.exporting.certificate import find_certificate
from boxwright.exporting.export_file import write_model
from boxwright.workflows import certified_export
from boxwright.workflows.certify import certify, measure_reference
from boxwright.workflows.reading import read_split
from boxwright.workflows.verification import Verification
from boxwright_runtime.exported_file import read_exported_file
from heard import Heard

TRAINING: dict[str, Any] = {
    "batch_size": 8,
    "schedule": {"evaluations": 1, "no_aug_fraction": 1.0},
    "batches": {"multi_scale": 0},
    "runtime": {"device": "cpu", "precision": "float32"},
}

MASKS: dict[str, Any] = {
    "backbone": {"name": "resnet", "depth": 18, "width": 16},
    "neck": {"name": "fpn", "out_channels": 32},
    "head": {
        "name": "mask_rcnn",
        "rpn": {"pre_nms_top_k": [200, 100], "post_nms_top_k": [100, 50], "anchor_scale": 4},
        "roi": {"num_samples": 64},
        "boxes": {"hidden_dim": 64},
        "mask": {"hidden_dim": 32},
        "detection": {"max_detections": 30},
    },
    "input": {"image_size": 96},
    "augment": {"photometric": 0, "zoom_out": 0, "iou_crop": 0},
    "train": {"steps": 60, "lr": 0.002, **TRAINING},
}

CLASSES: dict[str, Any] = {
    "backbone": {"name": "resnet_vd", "depth": 18, "width": 8, "levels": ["c5"]},
    "neck": "identity",
    "head": {"name": "classifier"},
    "input": {"image_size": 32, "resize": "center_crop"},
    "augment": {"zoom_out": 0, "iou_crop": 0, "resized_crop": [0.5, 1.0]},
    "train": {"steps": 30, "lr": 0.005, **TRAINING},
}


@pytest.fixture(autouse=True)
def no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the processes that measure speed."""
    monkeypatch.setattr(certified_export, "_measure_speed", lambda *_: [])


def negate(file: Path, target: Path, name: str) -> None:
    """Write a file with the opposite of a part's weights."""
    model = onnx.load(file)
    (weight,) = (one for one in model.graph.initializer if one.name.endswith(f"{name}.weight"))
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    write_model(model, read_exported_file(file).metadata, target)


@pytest.mark.slow
def test_masks(drawn: Path, tmp_path: Path) -> None:
    """Masks are measured as boxes are; where they alone are wrong, the file is rejected."""
    run = boxwright.train(MASKS, drawn, out=tmp_path / "run").load()
    file = tmp_path / "masks.onnx"
    certificate = boxwright.export(run, out=file, verify=Verification(data=drawn, split="train")).certificate
    assert certificate is not None
    assert certificate.is_accepted
    assert certificate.agreement.num_matched > 10
    assert 0 < certificate.agreement.mask_difference < 1e-3
    content = json.loads(find_certificate(file).read_text())
    assert set(content["losses"]) == {"AP", "segm.AP"}
    assert content["file"]["segm.AP50"] > 0.01
    negate(file, broken := tmp_path / "broken.onnx", "masks.enlarge")
    read = read_split(drawn, "train", categories=run.categories, observer=Heard())
    reference = measure_reference(run, read, drawn, split="train", observer=Heard())
    faults = certify(broken, reference, tolerance=0.1, observer=Heard()).faults
    assert any("on the same network input" in line for line in faults), faults
    assert not [line for line in faults if line.startswith("AP ")], "boxes are as good as ever"


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory, rectangles: Path) -> Path:
    """Red and blue rectangles, as a data set for classification; not to be written to."""
    out = tmp_path_factory.mktemp("crops") / "set"
    assert main(["crop", "--data", str(rectangles), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, crops: Path) -> Path:
    """The folder of a finished run of a classifier; not to be written to."""
    folder = tmp_path_factory.mktemp("classifier") / "run"
    boxwright.train(CLASSES, crops, out=folder)
    return folder


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("classes.onnx", "fp32"),
        pytest.param("classes.xml", "fp32", marks=pytest.mark.slow),
        pytest.param("classes.onnx", "int8", marks=pytest.mark.slow),
        pytest.param("classes.xml", "int8", marks=pytest.mark.slow),
    ],
)
def test_a_classifier(
    classifier: Path, crops: Path, tmp_path: Path, name: str, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss of top-1, in points, decides."""
    file = tmp_path / name
    options = ["--verify", str(crops), "--precision", precision, "--tolerance", "0.1" if precision == "fp32" else "10"]
    assert main(["export", str(classifier), "--out", str(file), *options]) == 0
    content = json.loads(find_certificate(file).read_text())
    assert set(content["model"]) == {"top1", "top5"}
    assert set(content["losses"]) == {"top1"}
    assert content["accepted"] is True
    assert content["model"]["top1"] > 0.8
    assert content["same_network_input"]["num_matched"] > 0
    assert [row["name"] for row in content["per_class"]] == ["blue", "red"]
    assert "top1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_classifier_with_wrong_weights(classifier: Path, crops: Path, tmp_path: Path) -> None:
    detector = boxwright.load(classifier)
    file = tmp_path / "classes.onnx"
    boxwright.export(detector, out=file)
    negate(file, broken := tmp_path / "broken.onnx", "head.linear")
    read = read_split(crops, "val", task="classification", categories=detector.categories, observer=Heard())
    reference = measure_reference(detector, read, crops, split="val", observer=Heard())
    certificate = certify(broken, reference, tolerance=0.1, observer=Heard())
    assert any(line.startswith("top1 of the file is ") for line in certificate.faults), certificate.faults
    assert certificate.measurements.of_model["top1"] > 0.8
