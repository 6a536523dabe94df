"""Runs that are killed: at each change of a file in turn, and at random moments; resumed, they end as if unbroken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import states_of
from torch import Tensor

from boxwright.checkpoints import BEST, LAST, find_checkpoint, has_last, read_checkpoint
from boxwright.detector import Detector
from boxwright.files import UNFINISHED
from boxwright.training import log, loop, saving
from boxwright.training.log import read_log
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from boxwright.training.step import StepResult
from equality import assert_equal, timeless

MakeRun = Callable[..., Run]

VALUES = (0.2, 0.1, 0.2, 0.3, 0.3, 0.1)
"""AP after each step: the first, worse, equal, better, equal, worse."""


def counter(detector: Detector) -> Tensor:
    """A whole number among the buffers: the moving average copies it, where fractions would lag behind."""
    return next(buffer for buffer in detector.buffers() if not buffer.is_floating_point())


class ByStep:
    """Measures what belongs to the step that the weights have come to."""

    num_images = 6

    def __call__(self, detector: Detector, _limit: int | None = None) -> dict[str, Any]:
        ap = VALUES[int(counter(detector)) - 1]
        return {"AP": ap, "AP50": ap}


@pytest.fixture
def cheap_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that take no time, and change weights, the average and the state of the optimizer all the same."""

    def step(detector: Detector, _model: Any, optimizer: torch.optim.Optimizer, *_: Any) -> StepResult:
        parameter = next(detector.parameters())
        parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        counter(detector).add_(1)
        return StepResult({"loss": float(parameter.detach().sum())}, 1.0)

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(saving, "seconds", lambda *_: -1.0)  # between checkpoints
    monkeypatch.setattr(log, "LOG_INTERVAL", 0.0)


def assert_ended_alike(folder: Path, unbroken: Path) -> None:
    for name in (LAST, BEST):
        assert_equal(read_checkpoint(folder / name), read_checkpoint(unbroken / name))
    assert timeless(read_log(folder)) == timeless(read_log(unbroken))
    assert not list(folder.glob(f"*{UNFINISHED}*"))


@pytest.mark.usefixtures("cheap_steps")
@pytest.mark.parametrize(
    ("steps", "evaluations", "best_step"),
    [(3, 3, 3), pytest.param(6, 6, 5, marks=pytest.mark.slow), pytest.param(6, 2, 3, marks=pytest.mark.slow)],
)
def test_a_run_killed_at_any_change_of_a_file_ends_as_the_unbroken_one(
    make_run: MakeRun, tmp_path: Path, steps: int, evaluations: int, best_step: int
) -> None:
    """Best, last and log; where the best is written right before the last, and where there are more last ones."""
    options: dict[str, Any] = {"steps": steps, "schedule__evaluations": evaluations, "batches__multi_scale": 0.0}
    run = replace(make_run(**options), evaluate=ByStep())
    counter(run.detector).zero_()

    def train(folder: Path, resume: bool) -> None:
        run_training(replace(run, folder=folder, detector=deepcopy(run.detector)), resume=resume)

    unbroken = tmp_path / "unbroken"
    with states_of(unbroken, tmp_path / "states") as watched:
        train(unbroken, resume=False)
    assert read_checkpoint(unbroken / BEST)["progress"]["step"] == best_step
    evaluated = [(row["step"], row["AP"]) for row in read_log(unbroken) if row["kind"] == "eval"]
    assert evaluated == [(step, VALUES[step - 1]) for step in range(1, steps + 1) if step * evaluations % steps == 0]
    assert watched.changes > 40
    assert len(watched.states) > 20
    for state in watched.states:
        if has_last(state):
            read_checkpoint(find_checkpoint(state))
        train(state, resume=has_last(state))
        assert_ended_alike(state, unbroken)


SMALL = {
    "backbone.width": 8,
    "image_size": 64,
    "train.steps": 6,
    "train.batch_size": 4,
    "train.schedule.evaluations": 3,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "rtdetr_tiny": {},
    "retinanet_r18_fpn": {"neck.out_channels": 16},
    "faster_rcnn_r18_fpn": {"neck.out_channels": 16},
    "detr_r50": {"backbone.depth": 18, "backbone.norm": "batch", "backbone.frozen_stages": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "processes", "chains"), [*((recipe, 1, 5) for recipe in FAMILIES), ("rtdetr_tiny", 2, 3)]
)
def test_runs_killed_at_random_moments_end_as_the_unbroken_one(
    drawn: Path, tmp_path: Path, recipe: str, processes: int, chains: int
) -> None:
    """By SIGKILL, again and again."""
    runtime = {"train.runtime.device": "cpu", "train.runtime.precision": "float32"}
    overrides = {**SMALL, **runtime, **FAMILIES[recipe]}
    script = str(Path(__file__).with_name("kill_chains.py"))
    command = [sys.executable, script, recipe, "--data", str(drawn), "--out", str(tmp_path), "--chains", str(chains)]
    done = subprocess.run(
        [*command, "--processes", str(processes), "--overrides", json.dumps(overrides)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.fullmatch(rf"{chains} chains, \d+ kills", done.stdout.splitlines()[-1])
