"""``boxwright.evaluate``: the numbers of the command, of a detector that stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import boxwright
from boxwright.cli.main import main
from boxwright.evaluation.evaluate import Evaluation


def test_the_numbers_of_the_command(trained: Path, drawn: Path, tmp_path: Path) -> None:
    assert main(["eval", str(trained), "--data", str(drawn), "--json", str(tmp_path / "x.json")]) == 0
    evaluation = boxwright.evaluate(trained, drawn)
    assert isinstance(evaluation, Evaluation)
    findings = [one.to_json() for one in evaluation.findings]
    assert {**evaluation.to_json(), "findings": findings} == json.loads((tmp_path / "x.json").read_text())
    assert evaluation.selection is not None
    assert set(evaluation.detections) == {image["id"] for image in _images(drawn)}


def test_a_detector_stays_as_it_was(trained: Path, drawn: Path) -> None:
    detector = boxwright.load(trained).train()
    detector.backbone.eval()
    modes = [module.training for module in detector.modules()]
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    measured = boxwright.evaluate(detector, drawn)
    assert measured.to_json() == boxwright.evaluate(trained, drawn).to_json()
    assert [module.training for module in detector.modules()] == modes
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_own_samples(trained: Path, drawn: Path) -> None:
    samples = []
    for image in _images(drawn):
        own = [a for a in _document(drawn)["annotations"] if a["image_id"] == image["id"]]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)]
        ids = [category["id"] for category in _document(drawn)["categories"]]
        labels = torch.tensor([ids.index(a["category_id"]) for a in own], dtype=torch.long)
        path = drawn / "images" / image["file_name"]
        samples.append({"image": path, "boxes": boxes, "labels": labels})
    names = [str(category["name"]) for category in _document(drawn)["categories"]]
    own_data = boxwright.ImageDataset(samples, names)
    measured, expected = (boxwright.evaluate(trained, data) for data in (own_data, drawn))
    assert isinstance(measured, Evaluation)
    assert isinstance(expected, Evaluation)
    assert pytest.approx(expected.boxes.AP50, abs=1e-9) == measured.boxes.AP50


def test_mistakes(trained: Path, drawn: Path) -> None:
    with pytest.raises(ValueError, match="max_detections is at least COCO's 100, not 50"):
        boxwright.evaluate(trained, drawn, max_detections=50)
    with pytest.raises(ValueError, match="no split 'test'"):
        boxwright.evaluate(trained, drawn, split="test")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt: no such file"):
        boxwright.evaluate("nowhere.pt", drawn)


def _document(drawn: Path) -> dict[str, list[dict[str, object]]]:
    document: dict[str, list[dict[str, object]]] = json.loads((drawn / "annotations" / "val.json").read_text())
    return document


def _images(drawn: Path) -> list[dict[str, object]]:
    return _document(drawn)["images"]


def test_precisions(trained: Path, drawn: Path, tmp_path: Path) -> None:
    single, half = (
        boxwright.evaluate(trained, drawn, device=boxwright.ComputeOptions("cpu", precision))
        for precision in ("float32", "bfloat16")
    )
    assert isinstance(single, Evaluation)
    assert isinstance(half, Evaluation)
    assert pytest.approx(single.boxes.AP, abs=0.05) == half.boxes.AP
    scores, others = (torch.cat([one.scores for one in two.detections.values()]) for two in (single, half))
    assert not torch.equal(scores, others)
    assert scores.sort().values.numpy() == pytest.approx(others.sort().values.numpy(), abs=0.03)
    command = ["eval", str(trained), "--data", str(drawn), "--json", str(tmp_path / "x.json")]
    assert main([*command, "--precision", "float32"]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["AP"] == single.boxes.AP
    with pytest.raises(ValueError, match="precision is auto, float32 or bfloat16, not 'half'"):
        boxwright.ComputeOptions(precision="half")  # type: ignore[arg-type]


def test_an_exported_file_has_its_own_precision(rectangle_file: Path, rectangles: Path) -> None:
    options = boxwright.ComputeOptions(precision="bfloat16")
    with pytest.raises(ValueError, match=r"onnx is an exported file.* own precision: leave out precision bfloat16, or"):
        boxwright.evaluate(rectangle_file, rectangles, device=options)
    with pytest.raises(ValueError, match="which has its own precision"):
        boxwright.predict(rectangle_file, rectangles / "images", device=options)
