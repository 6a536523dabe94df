"""Sharded training beside other options: synchronized norms, bfloat16, activation checkpointing, a budget of time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchrun import torchrun

from boxwright.checkpoints import LAST, read_checkpoint
from boxwright.training.log import read_log
from tiny_recipe import TINY_RECIPE

pytestmark = pytest.mark.slow

SYNCED: dict[str, Any] = {"train.runtime.sync_norms": True}
BFLOAT16: dict[str, Any] = {"train.runtime.precision": "bfloat16"}
CHECKPOINTED: dict[str, Any] = {"train.batches.activation_checkpointing": True}
BUDGET: dict[str, Any] = {"train.budget": "1h"}

CASES: dict[str, dict[str, Any]] = {
    "synced_and_checkpointed": {**SYNCED, **CHECKPOINTED},
    "bfloat16_in_a_budget": {**BFLOAT16, **BUDGET},
    "all": {**SYNCED, **BFLOAT16, **CHECKPOINTED, **BUDGET, "train.schedule.evaluations": 1},
}

STEPS = 2

SCRIPT = f"""
import json, sys
import boxwright
from boxwright.training import planning
from boxwright.training.budget import Plan
from boxwright.training.pace import Pace

def count(pace, now, evaluations_left):
    pace.left = getattr(pace, "left", {STEPS}) - 1
    return pace.left

# An hour that is over after a few steps.
planning.plan = lambda available, step, evaluation, wanted: Plan({STEPS}, wanted)
Pace.count_steps_left = count
recipe, data, out, cases = sys.argv[1:]
for name, overrides in json.loads(cases).items():
    for kind in ("copies", "sharded"):
        overrides["train.runtime.sharded"] = kind == "sharded"
        boxwright.train(recipe, data, out=f"{{out}}/{{name}}_{{kind}}", overrides=overrides)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Path:
    """The folder of all runs, of each kind, in two processes."""
    folder = tmp_path_factory.mktemp("combined")
    recipe, script = folder / "recipe.yaml", folder / "script.py"
    content = json.loads(json.dumps(TINY_RECIPE))
    content["train"]["schedule"]["evaluations"] = 0
    content["train"].pop("steps")
    recipe.write_text(yaml.safe_dump(content))
    script.write_text(SCRIPT)
    cases = {
        name: options if "train.budget" in options else {**options, "train.steps": STEPS}
        for name, options in CASES.items()
    }
    done = torchrun(str(script), str(recipe), str(drawn), str(folder), json.dumps(cases))
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return folder


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_log(run) if row["step"] in (1, STEPS) and row["kind"] == "train"]


def statistics(run: Path) -> torch.Tensor:
    model = read_checkpoint(run / LAST)["model"]
    return torch.cat([tensor for name, tensor in model.items() if name.endswith("running_mean")])


@pytest.mark.parametrize("name", CASES)
def test_shards_train_as_copies_do(runs: Path, name: str) -> None:
    """The first step and one that depends on those before it, with the statistics of norms."""
    copies, sharded = runs / f"{name}_copies", runs / f"{name}_sharded"
    for run in (copies, sharded):
        content = read_checkpoint(run / LAST)
        assert content["progress"]["step"] == STEPS
        assert content["recipe"]["train"]["runtime"]["sharded"] is (run == sharded)
        assert len(losses(run)) == 2
    tolerance = 0.02 if "bfloat16" in name or name == "all" else 1e-3
    assert losses(sharded) == pytest.approx(losses(copies), rel=tolerance)
    if "train.schedule.evaluations" in CASES[name]:
        assert any(row["kind"] == "eval" for row in read_log(sharded))
    torch.testing.assert_close(statistics(sharded), statistics(copies), rtol=tolerance, atol=tolerance)
