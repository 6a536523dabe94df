"""Large images tile by tile: ``predict``, ``evaluate`` and their commands, of a model that sees small squares only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import boxwright
from boxwright.cli.main import main
from boxwright.detector import Detector
from boxwright.evaluation.evaluate import Evaluation
from bright_square import make_bright_detector

SIDE = 64
SQUARES = [(20, 30, 40, 50), (120, 80, 150, 100), (230, 12, 270, 44), (30, 160, 50, 196), (280, 180, 300, 200)]
"""(x1, y1, x2, y2); the second and third are cut by tiles of 64 pixels without overlap, and no tile sees two."""


@pytest.fixture
def detector() -> Detector:
    return make_bright_detector(SIDE)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.zeros((200, 300, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in SQUARES:
        pixels[y1:y2, x1:x2] = 255
    Image.fromarray(pixels).save(tmp_path / "squares.png")
    return tmp_path / "squares.png"


def tiles(**options: Any) -> boxwright.ComputeOptions:
    given = {"size": SIDE, "whole": False, **options}
    return boxwright.ComputeOptions(precision="float32", tiles=boxwright.TileOptions(**given))


@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_squares_are_joined_over_the_borders_of_tiles(
    detector: Detector, image: Path, tmp_path: Path, overlap: float
) -> None:
    result = boxwright.predict(detector, image, device=tiles(overlap=overlap), out=tmp_path / "drawn")
    detections = result.detections[image.name]
    assert sorted(map(tuple, detections.boxes.tolist())) == sorted(SQUARES)
    assert detections.names == ["square"] * len(SQUARES)
    with Image.open(tmp_path / "drawn" / image.name) as drawn, Image.open(image) as original:
        assert drawn.size == original.size
        assert drawn.tobytes() != original.tobytes()
    # As a whole it is scaled to one tile, and all that is bright is in one box.
    assert len(boxwright.predict(detector, image).detections[image.name]) == 1


def test_the_whole_image_is_measured(detector: Detector, image: Path) -> None:
    sample = {"image": image, "boxes": SQUARES, "labels": [0] * len(SQUARES)}
    data = boxwright.ImageDataset([sample], ["square"])
    measured = boxwright.evaluate(detector, data, device=tiles())
    assert isinstance(measured, Evaluation)
    assert pytest.approx(1) == measured.boxes.AP
    whole = boxwright.evaluate(detector, data)
    assert isinstance(whole, Evaluation)
    assert whole.boxes.AP < 0.1


def test_a_classifier_has_no_tiles(image: Path) -> None:
    model = boxwright.build("resnet18_classifier", num_classes=3)
    with pytest.raises(ValueError, match="tiles are for detectors, and this model is for classification"):
        boxwright.predict(model, image, device=tiles())


def test_the_commands(trained: Path, drawn: Path, tmp_path: Path) -> None:
    def count(*arguments: str) -> int:
        target = tmp_path / "detections.json"
        images = str(drawn / "images" / "val_00000.jpg")
        command = ["predict", str(trained), images, "--out", str(tmp_path / "out"), "--json", str(target)]
        assert main([*command, "--threshold", "0", *arguments]) == 0
        return len(json.loads(target.read_text()))

    # Images of 80 pixels: there are four tiles of 48, and one of 96 holds all.
    assert count("--tiles", "96") == count() < count("--tiles", "48", "--tiles-only")
    command = ["eval", str(trained), "--data", str(drawn), "--tiles", "48", "--overlap", "0.4"]
    assert main([*command, "--json", str(tmp_path / "eval.json")]) == 0
    assert "AP50" in json.loads((tmp_path / "eval.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tiles", "16"], "32 or more, not '16'"),
        (["--tiles", "64", "--overlap", "1"], "between 0 and 0.9, not '1'"),
        (["--overlap", "0.3"], "give their size too, --tiles SIZE"),
    ],
)
def test_mistakes(
    trained: Path, image: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(trained), str(image), *arguments]) == 2
    assert message in capsys.readouterr().err
