"""The log of a run: appended to, cut back where steps will be done again, readable after a crash."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from boxwright.training import log
from boxwright.training.log import LOG, RunLog, read_log


def write(folder: Path, first: int, last: int) -> None:
    one = RunLog(folder, first - 1)
    for step in range(first, last + 1):
        one.write("train", {"step": step, "loss": 10.0 / step})
    one.write("eval", {"step": last, "AP": 0.5})
    one.close()


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    assert read_log(tmp_path) == [
        {"kind": "train", "step": 1, "loss": 10.0},
        {"kind": "train", "step": 2, "loss": 5.0},
        {"kind": "eval", "step": 2, "AP": 0.5},
    ]
    assert len((tmp_path / LOG).read_text().splitlines()) == 3


def test_there_may_be_no_log(tmp_path: Path) -> None:
    assert read_log(tmp_path) == []


def test_rows_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, 1, 5)
    write(tmp_path, 4, 6)
    assert [row["step"] for row in read_log(tmp_path) if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in read_log(tmp_path) if row["kind"] == "eval"] == [6]


def test_a_fresh_run_starts_a_fresh_log(tmp_path: Path) -> None:
    write(tmp_path, 1, 5)
    write(tmp_path, 1, 1)
    assert [row["step"] for row in read_log(tmp_path)] == [1, 1]


@pytest.mark.parametrize(
    "half", ['{"kind": "train", "st', "{", '{"kind": "train", "step": 4, "loss": 2.5', "\x00\x00\x00"]
)
def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path, half: str) -> None:
    write(tmp_path, 1, 3)
    with (tmp_path / LOG).open("a") as file:
        file.write(half)
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3, 3]
    write(tmp_path, 4, 4)
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3, 3, 4, 4]
    assert all(json.loads(line) for line in (tmp_path / LOG).read_text().splitlines())


DAMAGED = [
    b'{"kind": "train", "st',
    b"\x00\x00\x00",
    b"\xff\xfe",
    b"3",
    b'{"step": 2}',
    b'{"kind": "eval", "step": "x"}',
    b"",
]


@pytest.mark.parametrize("line", DAMAGED)
def test_rows_behind_a_damaged_one_are_kept(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, 1, 3)
    lines = (tmp_path / LOG).read_bytes().splitlines()
    (tmp_path / LOG).write_bytes(b"\n".join([lines[0], line, *lines[2:], line]) + b"\n")
    notes: list[str] = []
    RunLog(tmp_path, 3, notes.append)
    assert notes == [f"{tmp_path / LOG}: line 2 and 1 more of 5 cannot be read and is left out"]
    assert [row["step"] for row in read_log(tmp_path, notes.append)] == [1, 3, 3]
    assert len(notes) == 1


def test_it_is_cut_back_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, 5)
    before = (tmp_path / LOG).read_bytes()

    def fail(_source: Path, _target: Path) -> None:
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="killed"):
        RunLog(tmp_path, 2)
    assert (tmp_path / LOG).read_bytes() == before


def test_tensorboard_gets_every_number_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars: list[tuple[str, float, int]] = []

    class Writer:
        def add_scalar(self, tag: str, value: float, step: int) -> None:
            scalars.append((tag, value, step))

        def close(self) -> None:
            scalars.append(("closed", 0.0, 0))

    monkeypatch.setattr(log, "_tensorboard", lambda _folder, _step: Writer())
    one = RunLog(tmp_path, 0)
    row: dict[str, Any] = {"step": 3, "loss": 1.5, "losses": {"l1": 1.0, "giou": 0.5}, "per_class": [{"AP": 0.1}]}
    one.write("train", row)
    one.close()
    assert scalars == [
        ("train/loss", 1.5, 3),
        ("train/losses/l1", 1.0, 3),
        ("train/losses/giou", 0.5, 3),
        ("closed", 0, 0),
    ]


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    write(tmp_path, 1, 2)
    events = list((tmp_path / "tensorboard").iterdir())
    assert [event.name.startswith("events.out.tfevents") for event in events] == [True]
    assert b"train/loss" in events[0].read_bytes()
