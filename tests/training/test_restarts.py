"""Runs that torchrun starts again after a process has ended, and on machines without a shared disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from torchrun import start_machines, torchrun

from boxwright.checkpoints import read_checkpoint
from boxwright.training.log import read_log

RUN = """
import os, sys
import boxwright
from boxwright.training import loop

recipe, data, out, dies_at = sys.argv[1:]
step = loop.train_step
count = 0

def train_step(*arguments):
    global count
    count += 1
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1" and count == int(dies_at):
        os._exit(1)
    return step(*arguments)

loop.train_step = train_step
out = out.replace("MACHINE", os.environ["GROUP_RANK"])
result = boxwright.train(recipe, data, out=out, overrides={"train.steps": 6, "train.schedule.evaluations": 3})
print("steps made:", count, "categories:", len(result.load().categories))
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "run.py"
    path.write_text(RUN)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", [1, 4], ids=["before_a_checkpoint", "after_one"])
def test_restarted_processes_go_on(script: str, tmp_path: Path, recipe_file: Path, drawn: Path, dies_at: int) -> None:
    out = tmp_path / "run"
    done = torchrun("--max-restarts", "1", script, str(recipe_file), str(drawn), str(out), str(dies_at))
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(out / "last.pt")["progress"]["step"] == 6
    assert [row["step"] for row in read_log(out) if "AP" in row] == [2, 4, 6]
    made = 6 if dies_at == 1 else 4
    assert done.stdout.splitlines() == [f"steps made: {made} categories: 6"] * 2


@pytest.mark.slow
def test_machines_without_a_shared_disk(script: str, tmp_path: Path, recipe_file: Path, drawn: Path) -> None:
    """Each has its own folder; also the one that has no checkpoint goes on where the first one was."""
    arguments = ["--max-restarts", "1", script, str(recipe_file), str(drawn), str(tmp_path / "MACHINE" / "run"), "4"]
    for done in start_machines(2, *arguments):
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["steps made: 4 categories: 6"]
    assert read_checkpoint(tmp_path / "0" / "run" / "last.pt")["progress"]["step"] == 6
