"""The lock of a run's folder: one process at a time, and none that is dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxwright.training import folder_lock
from boxwright.training.folder_lock import LOCK, Holder, hold_folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"BEAT_SECONDS": 0.05, "WATCH_SECONDS": 0.5, "SETTLE_SECONDS": 0.01}.items():
        monkeypatch.setattr(folder_lock, name, seconds)


def leave_lock(folder: Path, **changes: Any) -> Path:
    """A lock that says that it is this process's, but for what changes."""
    with hold_folder(folder):
        content = json.loads((folder / LOCK).read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOCK).write_text(json.dumps({**content, **changes}))
    return folder / LOCK


@pytest.fixture
def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_second_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with hold_folder(tmp_path), pytest.raises(ValueError, match="works here, since ") as caught, hold_folder(tmp_path):
        pass
    assert str(caught.value).startswith(f"{tmp_path}: process {os.getpid()} on {socket.gethostname()} works here")
    assert str(caught.value).endswith(
        f": wait for it, end it, or give another folder; if it no longer runs, remove {tmp_path / LOCK}"
    )
    with hold_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_that_stay_empty_are_removed_again(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "runs" / "a"):
        assert (tmp_path / "runs" / "a" / LOCK).is_file()
    assert list(tmp_path.iterdir()) == []
    with hold_folder(tmp_path / "runs" / "a"):
        (tmp_path / "runs" / "a" / "log").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "a", "log"]


def test_one_of_a_process_that_has_ended_is_taken_over(tmp_path: Path, ended_process: int) -> None:
    lock, lines = leave_lock(tmp_path, pid=ended_process), list[str]()
    began = time.monotonic()
    with hold_folder(tmp_path, lines.append):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < folder_lock.WATCH_SECONDS
    assert lines == [
        f"{lock}: process {ended_process} on {socket.gethostname()} has ended without removing it; the folder is "
        "taken over"
    ]
    assert not lock.exists()


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="the system does not tell when a process started")
def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    leave_lock(tmp_path, started="1")
    with hold_folder(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "3", '{"pid": "x"}', '{"pid": 3}'])
def test_one_that_is_half_written_is_watched(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    lines: list[str] = []
    with hold_folder(tmp_path, lines.append):
        pass
    assert "a process that is not named holds the folder; seeing for " in lines[0]


@pytest.fixture
def beating(tmp_path: Path) -> Iterator[None]:
    """Another machine's process, which gives signs of life."""
    lock, ended = leave_lock(tmp_path, host="far", machine="other"), threading.Event()

    def beat() -> None:
        content, number = json.loads(lock.read_text()), 0
        while not ended.wait(0.02):
            number += 1
            lock.write_text(json.dumps({**content, "beat": number}))

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.mark.usefixtures("beating")
def test_one_of_another_machine_is_respected_while_it_lives(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="works here"), hold_folder(tmp_path):
        pass
    assert (tmp_path / LOCK).is_file()


def test_one_of_another_machine_is_taken_over_if_it_does_not_live(tmp_path: Path) -> None:
    leave_lock(tmp_path, host="far", machine="other")
    with hold_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_signs_of_life_change_nothing_else(tmp_path: Path) -> None:
    with hold_folder(tmp_path):
        first = json.loads((tmp_path / LOCK).read_text())
        end = time.monotonic() + 20
        while (now := json.loads((tmp_path / LOCK).read_text() or "{}")) == first or not now:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert {**now, "beat": 0} == first


def test_of_several_processes_of_a_run_the_first_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_folder(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with hold_folder(tmp_path):
            pass
        assert (tmp_path / LOCK).is_file()
        monkeypatch.setenv("RANK", "0")


def test_systems_without_proc_ask_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended_process: int) -> None:
    """As on Windows, where asking for a process may end it: signs of life decide."""
    monkeypatch.setattr(folder_lock, "_read_machine", lambda: "")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("asked"))
    assert Holder("here", ended_process, "token").is_alive() is None
    leave_lock(tmp_path)
    with hold_folder(tmp_path):
        pass


def test_of_many_at_once_one_gets_it(tmp_path: Path, ended_process: int) -> None:
    leave_lock(tmp_path, pid=ended_process)
    begin, held, refused = threading.Barrier(6), list[int](), list[str]()
    most = threading.Event()

    def hold(number: int) -> None:
        begin.wait()
        try:
            with hold_folder(tmp_path):
                held.append(number)
                most.wait(10)
        except ValueError as error:
            refused.append(str(error))
        if len(refused) == 5:
            most.set()

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)


def test_a_folder_that_takes_no_files_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=r"run\.lock cannot be written: Permission denied"), hold_folder(tmp_path):
        pass
