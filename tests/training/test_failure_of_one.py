"""A failure in one of several processes: all end at the same step, the state is saved, and one line says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torchrun import torchrun

from boxwright.checkpoints import LAST, read_checkpoint
from boxwright.training.distributed import Rank, attempt_together
from boxwright.training.log import read_log

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
from boxwright.cli.main import main
from boxwright.training import loop

batches = loop.training_batches

def broken(run, rank, schedule, progress):
    for step, batch in enumerate(batches(run, rank, schedule, progress), progress.step):
        if step == 3 and rank.index == 1 and os.environ.get("BREAKS"):
            raise {error}
        yield batch

loop.training_batches = broken
sys.exit(main(sys.argv[1:]))
"""

VANISHED = 'FileNotFoundError(2, "No such file or directory", "images/7.jpg")'


@pytest.mark.parametrize("sharded", ["false", "true"], ids=["copies", "sharded"])
def test_an_image_that_one_process_misses_ends_all_after_the_same_step(
    tmp_path: Path, recipe_file: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, sharded: str
) -> None:
    """Without waiting for torchrun, and with the steps before it saved; a sharded run too can be gathered then."""
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT.format(error=VANISHED))
    train = ["train", str(recipe_file), "--data", str(drawn), "--out", str(out), "--train.schedule.evaluations", "1"]
    train += ["--train.runtime.sharded", sharded]
    monkeypatch.setenv("BREAKS", "1")
    done = torchrun(str(script), *train)
    assert done.returncode != 0
    saved = f"images/7.jpg: No such file or directory; step 3 is saved in {out}, and --resume goes on from it"
    lines = [line for line in done.stderr.splitlines() if line.startswith("boxwright: error: ")]
    assert f"boxwright: error: {saved}" in lines
    # torchrun may be slow to end the other process, which then says no other word.
    assert all("images/7.jpg: No such file or directory" in line for line in lines)
    assert read_checkpoint(out / LAST)["progress"]["step"] == 3
    if sharded == "true":
        return
    monkeypatch.delenv("BREAKS")
    done = torchrun(str(script), *train, "--resume")
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(out / LAST)["progress"]["step"] == 6
    assert [row["step"] for row in read_log(out) if row["kind"] == "eval"] == [6]


def test_a_fault_that_nobody_foresaw_shows_where_it_is(
    tmp_path: Path, recipe_file: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that has it keeps its traceback; the first one names it, and saves."""
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT.format(error='TypeError("a transform of the user")'))
    monkeypatch.setenv("BREAKS", "1")
    done = torchrun(str(script), "train", str(recipe_file), "--data", str(drawn), "--out", str(out))
    assert done.returncode != 0
    assert f"boxwright: error: TypeError: a transform of the user; step 3 is saved in {out}" in done.stderr
    assert re.search(r"in broken\n", done.stderr)
    assert read_checkpoint(out / LAST)["progress"]["step"] == 3


def test_one_process_alone_has_its_own_error() -> None:
    def fail() -> None:
        raise TypeError("a fault")

    rank = Rank(0, 1, torch.device("cpu"))
    assert attempt_together(rank, lambda: 3) == 3
    with pytest.raises(TypeError, match="a fault"):
        attempt_together(rank, fail)
