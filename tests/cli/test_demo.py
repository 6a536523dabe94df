"""``boxwright demo``: the whole job, on a handful of small images, and once as it is."""

from __future__ import annotations

import json
import re
import shlex
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from boxwright.checkpoints import read_checkpoint
from boxwright.cli.main import main
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.training import loop
from boxwright.training.step import train_step
from boxwright.workflows import demo

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def small(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a demo that takes seconds."""
    monkeypatch.setattr(
        demo,
        "draw_data_set",
        lambda out, train, image_size: draw_data_set(out, train=train // 150, val=4, image_size=image_size // 2),
    )
    return ["demo", "--out", str(recipe_file.parent / "out"), "--recipe", str(recipe_file)]


def test_a_report_predictions_and_a_checkpoint(small: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert main(small) == 0
    captured = capsys.readouterr()
    out = tmp_path / "out"
    printed = dict(re.findall(r"^(report|predictions|checkpoint) +(.+)$", captured.out, re.MULTILINE))
    assert printed == {
        "report": str(out / "report.html"),
        "predictions": str(out / "predictions"),
        "checkpoint": str(out / "run" / "best.safetensors"),
    }
    assert all(Path(path).exists() for path in printed.values())
    steps = ["1/4  drawing a data set", "2/4  training", "3/4  evaluating and predicting", "4/4  writing the report"]
    assert [line for line in captured.err.splitlines() if line in steps] == steps
    assert "AP50" in captured.out
    assert "boxwright train rtdetr_r18 --data DIR" in captured.out

    report = (out / "report.html").read_text()
    for name in ("circle", "square", "triangle", "star", "cross", "ring", "AP50", "6 steps in "):
        assert name in report
    assert report.count("data:image/") == 2 * 4
    assert not re.search(r"""(src|href)=["']?https?:""", report)

    images = sorted((out / "predictions").glob("*.jpg"))
    assert [image.name for image in images] == [f"val_{i:05}.jpg" for i in range(4)]
    for image in images:
        with Image.open(image) as drawn, Image.open(out / "data" / "images" / image.name) as original:
            assert drawn.size == original.size
    rows: list[dict[str, Any]] = json.loads((out / "predictions" / "predictions.json").read_text())
    assert all(row["score"] >= demo.THRESHOLD for row in rows)


def test_a_second_call_trains_no_more(
    small: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(small) == 0
    checkpoint = tmp_path / "out" / "run" / "last.pt"
    before = checkpoint.stat().st_mtime_ns
    (tmp_path / "out" / "report.html").unlink()
    capsys.readouterr()
    monkeypatch.setattr(demo, "train", partial(pytest.fail, "trained again"))
    assert main(small) == 0
    assert f"     already done; remove {tmp_path / 'out' / 'run'} to train again\n" in capsys.readouterr().err
    assert checkpoint.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "report.html").is_file()


def test_an_interrupted_demo_goes_on(
    small: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return train_step(*arguments)

    monkeypatch.setattr(loop, "train_step", interrupted)
    assert main(small) == 130
    out = tmp_path / "out"
    assert f"stopped and saved in {out / 'run'}; to go on:  boxwright {shlex.join(small)}\n" in capsys.readouterr().err
    assert read_checkpoint(out / "run" / "last.pt")["progress"]["step"] == 3
    assert not (out / "report.html").exists()
    assert main(small) == 0
    assert read_checkpoint(out / "run" / "last.pt")["progress"]["step"] == 6
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_a_budget_replaces_the_steps_of_the_recipe(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxwright.training.planning.measure_step", lambda *_, **__: 2.0)
    monkeypatch.setattr("boxwright.training.planning._measure_evaluation", lambda *_: 0.0)
    assert main([*small, "--budget", "30s"]) == 0
    progress = read_checkpoint(tmp_path / "out" / "run" / "last.pt")["progress"]
    assert 10 <= progress["length"] <= 15
    assert progress["steps"] != 6


@pytest.mark.slow
def test_the_demo_finds_what_it_drew(tmp_path: Path, capsys: Capture) -> None:
    """As ``make demo`` runs it: AP50 of 0.85 at least on the held-out images."""
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    captured = capsys.readouterr()
    ap50 = max(float(value) for value in re.findall(r"AP50 (\d\.\d+)", captured.err))
    assert ap50 >= 0.85
    report = (tmp_path / "demo" / "report.html").read_text()
    assert report.count("data:image/") == 2 * demo.NUM_SHOWN
    assert len(list((tmp_path / "demo" / "predictions").glob("*.jpg"))) == demo.NUM_SHOWN
