"""Processes that the first of them starts: what they tell each other, and what is told where one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from spawned_work import Unreadable, add_ranks, be_killed, fail_alone

import boxwright
from boxwright.cli.main import main
from boxwright.training import spawn
from boxwright.training.spawn import start_processes


def test_each_has_its_rank_and_its_part_of_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "of another program")
    before, threads = dict(os.environ), torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        for _ in range(2):  # a second group after the first
            with start_processes(2, partial(add_ranks, tmp_path)):
                add_ranks(tmp_path)
            assert [(tmp_path / name).read_text() for name in "01"] == ["3 2 2"] * 2
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)
    assert dict(os.environ) == before
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("count", "world_size"), [(1, "1"), (3, "2")])
def test_one_is_enough_or_torchrun_has_started_them(
    count: int, world_size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.setattr(spawn, "_start", lambda *_: pytest.fail("started"))
    with start_processes(count, fail_alone):
        assert os.environ["WORLD_SIZE"] == world_size


@pytest.mark.parametrize(("work", "reason"), [(fail_alone, "image 7 has no end"), (be_killed, "by signal 9")])
def test_the_reason_of_another_one_is_told(work: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^another process of the run has ended \({reason}\)$"):  # noqa: SIM117
        with start_processes(2, work):
            work()


def test_an_error_of_this_one_ends_the_others_and_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "SECONDS_TO_END", 0.1)
    error, started = KeyError("own"), []

    def start(work: Any) -> Any:
        started.append(begin(work))
        return started[-1]

    begin = spawn._start
    monkeypatch.setattr(spawn, "_start", start)
    with pytest.raises(KeyError) as raised, start_processes(2, partial(time.sleep, 600)):
        raise error
    assert raised.value is error
    started[0].process.join(20)
    assert started[0].process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (
            lambda: None,
            r"other processes get data and transforms by pickle, .* one of them: .*; take torchrun, or one",
        ),
        (Unreadable(), r"another process could not be started \(exit status 3\); a script .* if __name__"),
    ],
)
def test_what_cannot_be_started(work: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^train\.runtime\.processes: {message}"), start_processes(2, work):
        pytest.fail("begun")


def test_two_train_to_the_weights_of_one(tiny_recipe: dict[str, Any], drawn: Path, tmp_path: Path) -> None:
    overrides = {
        "train.steps": 2,
        "train.optimizer.name": "sgd",  # AdamW makes steps of rounding errors
        "train.runtime.sync_norms": True,
        "train.runtime.precision": "float32",
    }
    one = boxwright.train(tiny_recipe, drawn, out=tmp_path / "one", overrides=overrides)
    two = boxwright.train(
        tiny_recipe, drawn, out=tmp_path / "two", overrides={**overrides, "train.runtime.processes": 2}
    )
    assert two.steps == one.steps == 2
    assert two.best == pytest.approx(one.best, abs=0.01)
    expected, trained = one.load().state_dict(), two.load().state_dict()
    for name, value in expected.items():
        # Means of norms over the images of both; those of one alone are 0.01 to 0.1 away.
        torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-3, msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "train.runtime.processes is greater than 0, not 0"),
        ({"processes": 3}, "a batch of 4 cannot be divided evenly between 3 processes: give a positive multiple of 3"),
    ],
)
def test_numbers_of_processes_that_cannot_be(
    options: dict[str, int], message: str, tiny_recipe: dict[str, Any], drawn: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        boxwright.train(
            tiny_recipe,
            drawn,
            out=tmp_path / "run",
            overrides={"train.steps": 1, "train.batch_size": 4, "train.runtime": options},
        )


def test_gpus_that_are_not_there(
    tiny_recipe: dict[str, Any], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, message in {"auto": "torch sees 1 CUDA devices", "cuda": "cuda is one device, and 2 proc"}.items():
        with pytest.raises(ValueError, match=message):
            boxwright.train(
                tiny_recipe,
                drawn,
                out=tmp_path / "run",
                overrides={"train.runtime.device": device, "train.runtime.processes": 2},
            )


def ended_within(seconds: float, group: int) -> bool:
    """Tell if no process of a group is left; one that counts what processes have in common ends after them."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_stops_all_and_the_run_goes_on_with_as_many(
    recipe_file: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    typed = ["train", str(recipe_file), "--data", str(drawn), "--out", str(run), "--train.runtime.processes", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "boxwright", *typed, "--train.steps", "2000"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not (run / "log.jsonl").is_file() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert f"stopped and saved in {run}; to go on:  boxwright train" in output
    assert "Traceback" not in output
    assert ended_within(5, process.pid)
    steps = len((run / "log.jsonl").read_text().splitlines()) + 2
    resumed = ["train", str(recipe_file), "--data", str(drawn), "--out", str(run), "--resume", "--train.steps"]
    counts: list[int] = []

    def start(count: int, work: Any) -> Any:
        counts.append(count)
        return start_processes(count, work)

    monkeypatch.setattr("boxwright.workflows.train.start_processes", start)
    assert main([*resumed, str(steps)]) == 0
    assert main([*resumed, str(steps + 1), "--train.runtime.processes", "1"]) == 0
    assert counts == [2, 1]
