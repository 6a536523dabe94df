"""Results in files: what stood there stays whole until the new file is complete, and is not written over in place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from boxwright.cli.main import main

Command = Callable[[Path], list[str]]


@pytest.fixture(params=["predict", "eval"])
def command(request: pytest.FixtureRequest, trained: Path, drawn: Path, tmp_path: Path) -> Command:
    """The arguments of a command that writes JSON."""
    predict = ["predict", str(trained), str(drawn / "images" / "val_00000.jpg"), "--out", str(tmp_path / "drawn")]
    evaluate = ["eval", str(trained), "--data", str(drawn)]
    chosen = {"predict": predict, "eval": evaluate}[request.param]
    return lambda target: [*chosen, "--json", str(target)]


def test_another_name_of_the_older_file_keeps_what_stood_there(command: Command, tmp_path: Path) -> None:
    target, other = tmp_path / "results.json", tmp_path / "earlier.json"
    target.write_text("earlier results")
    os.link(target, other)
    assert main(command(target)) == 0
    assert json.loads(target.read_text()) is not None
    assert other.read_text() == "earlier results"


def test_a_crash_while_it_is_written_costs_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the moment at which the new file takes the name of the older one."""
    target = tmp_path / "results.json"
    target.write_text("earlier results")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(main(command(target)))
    assert target.read_text() == "earlier results"
    assert [path.name for path in tmp_path.glob("results*")] == ["results.json"]
