"""Files that commands write: whole or not at all, with the permissions, links and devices that were there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from boxwright.files import (
    check_folder,
    check_target,
    is_standard_output,
    remove_unfinished,
    replace_file,
    write_text,
)


@pytest.fixture(params=[0o022, 0o077], ids=["umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "deep" / "a.json", "ü")
    assert (tmp_path / "deep" / "a.json").read_bytes() == "ü".encode()
    assert mode(tmp_path / "deep" / "a.json") == 0o666 & ~umask
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.json"]


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o664])
def test_an_older_file_keeps_its_permissions(tmp_path: Path, permissions: int) -> None:
    path = tmp_path / "a.json"
    path.write_text("old" * 1000)
    path.chmod(permissions)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert mode(path) == permissions


def test_the_file_behind_a_link_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "a.json", tmp_path / "link.json"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(Path("real") / "a.json")
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert mode(real) == 0o600


def test_a_link_to_nothing_makes_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "b")
    check_target(tmp_path / "link")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "b").read_text() == "new"


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    before = os.stat(os.devnull)
    check_target(Path(os.devnull))
    write_text(Path(os.devnull), "x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert os.stat(os.devnull).st_ino == before.st_ino
    (tmp_path / "null").symlink_to(os.devnull)
    write_text(tmp_path / "null", "x")
    assert (tmp_path / "null").is_symlink()
    assert not list(Path("/dev").glob("null*.unfinished"))


def test_a_pipe_gets_the_text(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.append(pipe.read_text()))
    reader.start()
    check_target(pipe)
    write_text(pipe, "through the pipe")
    reader.join(10)
    assert texts == ["through the pipe"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("into_a_file", [True, False], ids=["file", "pipe"])
def test_standard_output_goes_on_where_it_was(tmp_path: Path, name: str, into_a_file: bool) -> None:
    if not Path(name).exists():
        pytest.skip(f"there is no {name}")
    code = f"from boxwright.files import *; print('a'); write_text(Path('{name}'), 'b\\n'); print('c')"
    with (tmp_path / "out.txt").open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=file if into_a_file else subprocess.PIPE, text=True, check=True
        )
    assert ((tmp_path / "out.txt").read_text() if into_a_file else done.stdout) == "a\nb\nc\n"
    assert is_standard_output(Path(name))
    assert not is_standard_output(tmp_path / "out.txt")


@pytest.mark.parametrize("into_a_file", [True, False], ids=["file", "pipe"])
def test_a_link_to_standard_output_is_standard_output(tmp_path: Path, into_a_file: bool) -> None:
    if not Path("/dev/stdout").exists():
        pytest.skip("there is no /dev/stdout")
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to("/dev/stdout")
    path = tmp_path / "first"
    code = f"from boxwright.files import *; print('a'); write_text(Path({str(path)!r}), 'b\\n'); print('c')"
    with (tmp_path / "out.txt").open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=file if into_a_file else subprocess.PIPE, text=True, check=True
        )
    assert ((tmp_path / "out.txt").read_text() if into_a_file else done.stdout) == "a\nb\nc\n"
    assert is_standard_output(path)


def test_links_in_a_circle_are_no_standard_output(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert not is_standard_output(tmp_path / "a")


def test_other_hard_links_keep_what_stood_there(tmp_path: Path) -> None:
    path, other = tmp_path / "a.json", tmp_path / "b.json"
    path.write_text("old")
    other.hardlink_to(path)
    write_text(path, "new")
    assert (path.read_text(), other.read_text()) == ("new", "old")


def test_what_stood_there_stays_whole_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def crash(*_: object) -> None:
        assert path.read_text() == "old"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a folder; give the name of a file"):
        check_target(tmp_path)
    with pytest.raises(ValueError, match="file is a file, not a folder"):
        check_target(tmp_path / "file" / "a.json")
    with pytest.raises(ValueError, match="file is a file; give the name of a folder"):
        check_folder(tmp_path / "file")
    check_folder(tmp_path / "new" / "folder")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


class TestEarlierFiles:
    def test_one_is_kept_under_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        for text in ("1", "2", "3"):
            replace_file(path, partial(_write, text=text), earlier="b")
        assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"a": "3", "b": "2"}

    def test_what_a_link_leads_to_is_not(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_text("1")
        (tmp_path / "a").symlink_to(tmp_path / "real")
        replace_file(tmp_path / "a", lambda unfinished: _write(unfinished, "2"), earlier="b")
        assert (tmp_path / "real").read_text() == "2"
        assert {one.name for one in tmp_path.iterdir()} == {"real", "a"}

    def test_unfinished_ones_are_removed(self, tmp_path: Path) -> None:
        for name in ("a", "a.unfinished", "b.unfinished", "c.unfinished"):
            (tmp_path / name).touch()
        remove_unfinished(tmp_path, ("a", "b", "missing"))
        assert {one.name for one in tmp_path.iterdir()} == {"a", "c.unfinished"}


def _write(path: Path, text: str) -> None:
    path.write_text(text)
