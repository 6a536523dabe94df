"""Runs that train on labels of a detector too: broken off, gone on with, and refused."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import boxwright
from boxwright.checkpoints import LAST, passport_of, read_checkpoint
from boxwright.cli.main import main
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.model_card import describe_passport
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import read_log
from equality import assert_equal
from heard import Heard

OPTIONS = {"train.steps": 6, "train.schedule.evaluations": 0}


@pytest.fixture(scope="module")
def data(trained: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> boxwright.DataFiles:
    """Ten images with labels, and the six held out with those of a hardly trained detector: three in an epoch."""
    pseudo = tmp_path_factory.mktemp("pseudo") / "labels"
    boxwright.prelabel(trained, sorted((drawn / "images").glob("val_*")), pseudo, threshold=0.02)
    return boxwright.DataFiles(folder=drawn, pseudo=pseudo, pseudo_weight=0.5)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, event: StepEvent) -> None:
        if event.step == self.step:
            signal.raise_signal(signal.SIGINT)


def test_a_broken_run_ends_as_the_unbroken_one(
    data: boxwright.DataFiles, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    heard = Heard()
    boxwright.train(tiny_recipe, data, out=tmp_path / "whole", observer=heard, overrides=OPTIONS)
    assert any(line.endswith(f"into {tmp_path / 'whole'}") for line in heard.lines)
    assert any("16 images of 6 classes, 6 of them with pseudo-labels, 3 in an epoch" in line for line in heard.lines)
    steps = [row for row in read_log(tmp_path / "whole") if row["kind"] == "train"]
    assert steps[-1]["epoch"] == pytest.approx(steps[-1]["step"] * 4 / 13, abs=1e-3)
    with pytest.raises(Interrupted):
        boxwright.train(tiny_recipe, data, out=tmp_path / "broken", callbacks=[StopAt(4)], overrides=OPTIONS)
    boxwright.train(tiny_recipe, data, out=tmp_path / "broken", resume=True, overrides=OPTIONS)
    whole, broken = (read_checkpoint(tmp_path / name / LAST) for name in ("whole", "broken"))
    assert_equal(whole["model"], broken["model"])


def test_it_goes_on_with_the_same_labels_alone(
    data: boxwright.DataFiles, drawn: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder, overrides = tmp_path / "run", {**OPTIONS, "train.steps": 1}
    boxwright.train(tiny_recipe, data, out=folder, overrides=overrides)
    passport = passport_of(read_checkpoint(folder / LAST))
    assert passport is not None
    assert passport.data is not None
    assert (passport.data.num_images, passport.data.num_pseudo, passport.data.pseudo_weight) == (16, 6, 0.5)
    assert any("16 images, 6 of them with pseudo-labels of weight 0.5" in line for line in describe_passport(passport))
    assert data.pseudo is not None
    annotations = Path(data.pseudo) / "annotations/train.json"
    document = json.loads(annotations.read_text())
    changed = tmp_path / "changed"
    (changed / "annotations").mkdir(parents=True)
    (changed / "images").symlink_to(Path(data.pseudo) / "images")
    document["annotations"][0]["bbox"][2] *= 0.5
    (changed / "annotations/train.json").write_text(json.dumps(document))
    others = {
        "on 16 images of set, and set has 10": drawn,
        "and the annotations of set are others": replace(data, pseudo=changed),
        "on 6 images with pseudo-labels of weight 0.5, and not on 6 images with .* of weight 1": replace(
            data, pseudo_weight=1.0
        ),
    }
    for message, other in others.items():
        with pytest.raises(ValueError, match=message):
            boxwright.train(tiny_recipe, other, out=folder, resume=True, overrides={**OPTIONS, "train.steps": 2})
    boxwright.train(tiny_recipe, data, out=folder, resume=True, overrides={**OPTIONS, "train.steps": 2})


def test_wrong_options_are_told(
    recipe_file: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_data_set(tmp_path / "others", train=2, val=1, image_size=64)
    document = json.loads((tmp_path / "others/annotations/train.json").read_text())
    document["categories"] = [{**one, "name": f"unicorn {one['id']}"} for one in document["categories"]]
    (tmp_path / "others/annotations/train.json").write_text(json.dumps(document))
    command = ["train", str(recipe_file), "--data", str(drawn), "--out", str(tmp_path / "run")]
    for typed, message in (
        (["--pseudo", str(tmp_path / "nothing")], "does not exist"),
        (["--pseudo.weight", "2"], "give --pseudo DIR too"),
        (["--pseudo", str(drawn), "--pseudo.weight", "0"], "a number above 0, not 0.0"),
        (["--pseudo", str(drawn), "--pseudo.weight", "half"], "invalid float value: 'half'"),
        (["--pseudo", str(tmp_path / "others")], "'unicorn "),
    ):
        assert main([*command, *typed]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert message in lines[-1], lines
        assert not (tmp_path / "run" / LAST).exists()
