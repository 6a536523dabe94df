"""Origins of detections: in pixels of the image, of the detection that ``predict`` returns, for every kind of input."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import boxwright
from boxwright.cli.main import main
from boxwright.detector import Detector
from boxwright.explaining.origin import main_cell, trace_origin
from boxwright.mechanism import ClassifierMechanism, QueryMechanism
from boxwright_runtime.detections import Detections
from heard import Heard
from part_checks import composed
from random_weights import shake

Capture = pytest.CaptureFixture[str]

SHAPE = (90, 130)
"""(height, width) of an image that no input has."""


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)


def shaken(backbone: str, necks: list[str], head: str, **changes: Any) -> Detector:
    detector = composed(backbone, necks, head, 3)
    shake(detector.head)
    detector.input_format = replace(detector.input_format, **changes)
    return detector.eval()


FORMATS: list[dict[str, Any]] = [{}, {"resize": "shortest_side", "max_size": 96}, {"resize": "letterbox"}]


@pytest.mark.parametrize("changes", FORMATS, ids=str)
@pytest.mark.parametrize(
    ("necks", "head"), [(["hybrid_encoder"], "rtdetr"), (["fpn"], "faster_rcnn"), (["fpn"], "retinanet")]
)
def test_the_origin_is_of_the_detection(necks: list[str], head: str, changes: dict[str, Any]) -> None:
    detector = shaken("resnet", necks, head, **changes)
    detections = detector.predict(image())
    assert isinstance(detections, Detections)
    limits = torch.tensor([SHAPE[1], SHAPE[0]] * 2)
    for number in (1, 2, len(detections)):
        origin = trace_origin(detector, image(), number)
        assert origin is not None
        one = detections[number - 1]
        box = origin.mechanism.box.clamp(min=0).minimum(limits)
        torch.testing.assert_close(box, torch.tensor(one.box), rtol=0, atol=1e-3)
        assert origin.mechanism.score == pytest.approx(one.score, abs=1e-5)
        assert origin.mechanism.label == one.label
        assert len(origin.encoder) == (1 if head == "rtdetr" else 0)
        cell = main_cell(origin.mechanism)
        assert cell is not None
        assert cell.box[:2].min() >= 0
        # A letterbox has cells below the image.
        assert changes.get("resize") == "letterbox" or (cell.box[0] < SHAPE[1] and cell.box[1] < SHAPE[0])


def test_the_cell_of_the_encoder_is_at_the_detection() -> None:
    detector = shaken("resnet", ["hybrid_encoder"], "rtdetr")
    origin = trace_origin(detector, image(), 1)
    assert origin is not None
    x1, y1, x2, y2 = origin.mechanism.box.tolist()
    left, top, right, bottom = origin.encoder[0].cell.box.tolist()
    # Of a center outside of the image, the nearest cell.
    assert left <= min(max((x1 + x2) / 2, 0), SHAPE[1] - 1) <= right
    assert top <= min(max((y1 + y2) / 2, 0), SHAPE[0] - 1) <= bottom


def test_a_class_is_explained_too() -> None:
    detector = shaken("resnet", [], "classifier", resize="center_crop")
    origin = trace_origin(detector, image(), 1)
    assert origin is not None
    assert isinstance(origin.mechanism, ClassifierMechanism)
    boxes = [one.box for one in origin.mechanism.maps.values()]
    window = detector.input_format.window(*SHAPE)
    for box in boxes:
        torch.testing.assert_close(box, torch.tensor([window.x1, window.y1, window.x2, window.y2]))


class ForeignHead(torch.nn.Module):
    """A head from outside, with no more than heads must have."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        self.own = own

    def forward(self, *inputs: Any) -> Any:
        return self.own(*inputs)

    def loss(self, *inputs: Any) -> Any:
        return self.own.loss(*inputs)

    def decode(self, output: Any) -> Any:
        return self.own.decode(output)


def test_a_head_from_outside_has_saliency_alone(path: Path) -> None:
    detector, observer = shaken("resnet", ["fpn"], "retinanet"), Heard()
    detector.head = ForeignHead(detector.head)
    explanation = boxwright.explain(detector, path, method="gradient", observer=observer)
    assert explanation.origin is None
    assert explanation.saliency is not None
    assert explanation.describe() == []
    assert "mechanism" not in explanation.to_json()
    assert any("does not tell where detections come from" in note for note in observer.notes)
    with pytest.raises(ValueError, match="has no explanations"):
        explanation.draw()


def test_no_such_detection() -> None:
    with pytest.raises(ValueError, match="there is no detection 9999"):
        trace_origin(shaken("resnet", ["fpn"], "retinanet"), image(), 9999)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of an image."""
    Image.fromarray(image()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_query_in_words_drawings_and_on_a_page(path: Path, tmp_path: Path) -> None:
    detector, out = shaken("resnet", ["hybrid_encoder"], "rtdetr"), tmp_path / "page.html"
    explanation = boxwright.explain(detector, path, number=2, method="none", out=out)
    assert explanation.saliency is explanation.faithfulness is None
    assert explanation.origin is not None
    mechanism = explanation.origin.mechanism
    assert isinstance(mechanism, QueryMechanism)
    lines = explanation.describe()
    assert len(lines) == len(mechanism.layers) + 1
    assert lines[0].startswith("encoder: The encoder's cell ")
    assert f"{float(mechanism.layers[-1].scores[mechanism.label]):.3f}" in lines[-1]

    page = out.read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<circle") == sum(x.samples.weights.numel() for x in mechanism.layers if x.samples is not None)
    assert page.count('<input type="range"') == 1

    drawn = [np.asarray(explanation.draw(step)) for step in range(len(lines))]
    assert all(np.any(a != b) for a, b in pairwise(drawn))
    np.testing.assert_array_equal(np.asarray(explanation.draw()), drawn[-1])
    with pytest.raises(ValueError, match="there is no step 99"):
        explanation.draw(99)


def test_the_command(rectangle_run: Path, rectangles: Path, tmp_path: Path, capsys: Capture) -> None:
    drawn, out, target = min((rectangles / "images").iterdir()), tmp_path / "page.html", tmp_path / "numbers.json"
    arguments = [str(rectangle_run), str(drawn), "--method", "none", "--out", str(out), "--json"]
    assert main(["explain", *arguments, str(target)]) == 0
    printed = capsys.readouterr().out
    numbers = json.loads(target.read_text())
    mechanism = numbers["mechanism"]
    assert mechanism["kind"] == "dense"
    assert f"row {mechanism['anchor']['cell']['row'] + 1}, column" in printed
    assert mechanism["score"] == pytest.approx(numbers["detection"]["score"], abs=1e-5)
    assert "faithfulness" not in numbers
    assert main(["explain", *arguments, "-"]) == 0
    assert "page in" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["missing.jpg", "text.jpg"])
def test_images_that_cannot_be_read(name: str, rectangle_run: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    out = tmp_path / "page.html"
    assert main(["explain", str(rectangle_run), str(tmp_path / name), "--method", "none", "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert name in error
    assert "\n" not in error
    assert not out.exists()
