"""Files that do not say all of their model: commands take what is missing, and errors say what was assumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import boxwright
from boxwright.cli import eval as eval_command
from boxwright.cli.main import main
from boxwright.workflows import evaluate as evaluation
from heard import Heard

HEADS = {"head.decoder.num_heads": 4}
SMALL = {
    "image_size": 64,
    "backbone.width": 8,
    "neck.num_blocks": 3,
    "neck.hidden_dim": 32,
    "neck.feedforward_dim": 32,
    "head.hidden_dim": 32,
    "head.num_queries": 9,
    "head.decoder.feedforward_dim": 32,
    **HEADS,
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an RT-DETR of four heads, in the layout of transformers, without its configuration."""
    folder = tmp_path_factory.mktemp("bare")
    torch.manual_seed(0)
    boxwright.build("rtdetr_tiny", num_classes=6, overrides=SMALL).save(folder / "m.safetensors")
    boxwright.convert(folder / "m.safetensors", folder / "hf", to="hf", observer=Heard())
    (folder / "alone").mkdir()
    shutil.copy(folder / "hf" / "model.safetensors", folder / "alone" / "bare.safetensors")
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(folder / "gray.jpg")
    return folder / "alone" / "bare.safetensors"


def test_an_error_of_shapes_says_what_was_assumed(bare: Path) -> None:
    with pytest.raises(
        ValueError, match=r"and should be .*; it was assumed: no config.json: 8 attention heads"
    ) as caught:
        boxwright.load(bare)
    assert "\n" not in str(caught.value)


def test_predict_takes_what_is_missing(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(bare.parents[1] / "gray.jpg")
    arguments = ["predict", str(bare), image, "--out", str(tmp_path / "out"), "--head.decoder.num_heads", "4"]
    assert main([*arguments, "--image-size", "64"]) == 0
    assert (tmp_path / "out" / "gray.jpg").is_file()
    assert "unknown option" not in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"overrides are for models that are read, not for a detector: image_size"):
        boxwright.predict(boxwright.load(bare.parents[1] / "hf"), image, overrides={"image_size": 64})


def test_evaluate_takes_what_is_missing(bare: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {**HEADS, "image_size": 64}
    detector = evaluation.load_predictor(bare, device="auto", trusted=(), observer=Heard(), overrides=overrides)
    assert isinstance(detector, boxwright.Detector)
    assert detector.input_format.image_size == 64
    asked: dict[str, Any] = {}

    def remember(*_: Any, **options: Any) -> None:
        asked.update(options)
        raise ValueError("asked")

    monkeypatch.setattr(evaluation, "load_predictor", remember)
    assert main(["eval", str(bare), "--data", str(drawn), "--head.decoder.num_heads", "4"]) == 2
    assert asked["overrides"] == {"head.decoder.num_heads": "4"}
    assert "--head.decoder.num_heads" in eval_command.OVERRIDES_HELP


def test_training_takes_what_is_missing(bare: Path, drawn: Path, tmp_path: Path) -> None:
    options = {"train.steps": 1, "train.schedule.evaluations": 1, "image_size": 64}
    with pytest.raises(ValueError, match=r"it was assumed: no config.json"):
        boxwright.train("rtdetr_tiny", drawn, out=tmp_path / "a", weights=bare, overrides=options)
    heard = Heard()
    overrides = {**options, **HEADS}
    result = boxwright.train(
        "rtdetr_tiny", drawn, out=tmp_path / "a", weights=bare, observer=heard, overrides=overrides
    )
    report = next(line for line in heard.lines if line.startswith("weights from"))
    total = report.split(": ")[-1].split()
    assert total[0] == total[2]
    detector = result.load()
    assert isinstance(detector.recipe, boxwright.Recipe)
    assert detector.recipe.head.options["decoder"].num_heads == 4
