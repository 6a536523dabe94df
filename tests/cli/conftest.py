"""Commands that must fail: an empty folder to be in, a data set to break, and what is left afterward."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from boxwright.cli.main import main

Refused = Callable[[Sequence[str]], str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty, so that what a command leaves anywhere in it is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def data(here: Path, drawn: Path) -> Path:
    """A data set to break."""
    return shutil.copytree(drawn, here / "data")


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must fail, and returns its one line.

    Status 2, nothing on stdout, no traceback, and not a byte changed; lines of the command on data and progress may
    stand before the line.
    """

    def run(argv: Sequence[str]) -> str:
        with nothing_changes(here):
            assert main(argv) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.endswith("\n")
        *before, line = captured.err.splitlines()
        assert all(entry.startswith(("note: ", "training on ", "1/4  drawing")) for entry in before), captured.err
        assert line.startswith("boxwright: error: ")
        return line.removeprefix("boxwright: error: ")

    return run


@contextmanager
def nothing_changes(folder: Path) -> Iterator[None]:
    def content() -> dict[str, bytes | None]:
        return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}

    before = content()
    yield
    after = content()
    assert after.keys() == before.keys()
    assert after == before
