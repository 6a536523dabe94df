"""Output of commands: it reaches pipes, devices and narrow encodings, and commands no terminal."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.text import Text

from boxwright.cli.console import ConsoleObserver, NoteConsole, TerminalConsole, describe_pace
from boxwright.cli.main import main
from boxwright.cli.terminal import any_encoding, join_lines, quote_command, quote_path, show
from boxwright.evaluation.tables import format_number

ESCAPE = "\x1b[2J\x1b]0;owned\x07\r\u202ered"
"""Clears the screen, names the window, goes to the beginning of the line and turns the direction of writing."""

HOSTILE = f"circle{ESCAPE}"

Capture = pytest.CaptureFixture[str]


def assert_tame(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n")), repr(text)[:2000]


@pytest.fixture
def hostile(tmp_path: Path, drawn: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set and a run, one of whose classes has a name that commands terminals."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(drawn, "data")
    for file in Path("data").rglob("*.json"):
        document = json.loads(file.read_text())
        for category in document.get("categories", []):
            category["name"] = category["name"].replace("circle", HOSTILE)
        file.write_text(json.dumps(document))
    content = torch.load(trained / "last.pt", weights_only=True)
    content["categories"] = [(number, name.replace("circle", HOSTILE)) for number, name in content["categories"]]
    Path("run").mkdir()
    torch.save(content, "run/last.pt")
    torch.save({**content, "recipe": {**content["recipe"], f"x{ESCAPE}": {}}}, "broken.pt")
    shutil.copy(next(Path("data/images").rglob("*.*g")), f"a{ESCAPE.replace('/', '')}.png")
    return tmp_path


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize(
    "line",
    [
        "check data",
        "check data --html page.html",
        "info run",
        "info broken.pt",
        "eval run --data data",
        "predict run . --out drawn",
        "crop --data data --out crops",
        "convert-data data voc --to voc",
        "convert run converted.safetensors",
        f"info no{ESCAPE}such",
        f"list {ESCAPE}",
        f"{ESCAPE}",
        f"train rtdetr_tiny --data no{ESCAPE}such",
        f"train rtdetr_tiny --data data --neck {ESCAPE}",
        f"info rtdetr_tiny --trust {ESCAPE}",
    ],
)
def test_names_do_not_command_the_terminal(line: str, capsys: Capture) -> None:
    assert main(shlex.split(line.replace(ESCAPE, shlex.quote(ESCAPE)))) in (0, 1, 2)
    captured = capsys.readouterr()
    assert_tame(captured.out)
    assert_tame(captured.err)
    assert "Traceback" not in captured.err


@pytest.mark.usefixtures("hostile")
def test_training_does_not_either(recipe_file: Path, capsys: Capture) -> None:
    out = f"run{ESCAPE}"
    assert main(["train", str(recipe_file), "--data", "data", "--out", out, "--train.steps", "2"]) == 0
    assert_tame(capsys.readouterr().err)


def test_a_console_on_a_terminal() -> None:
    """Its own commands, as colors, stay."""
    target = io.StringIO()
    console = TerminalConsole(file=target, force_terminal=True, color_system="standard", width=200)
    console.print(Text(f"a{ESCAPE}\nb", style="red"))
    assert "\x1b[31ma\\x1b[2J\\x1b]0;owned" in target.getvalue()
    assert "\x1b[2J" not in target.getvalue()
    assert "\\u202e" in target.getvalue()


def test_warnings_and_messages_are_tame(capsys: Capture) -> None:
    show(f"one{ESCAPE}\ntwo")
    assert capsys.readouterr().out == "one\\x1b[2J\\x1b]0;owned\\x07\\r\\u202ered\ntwo\n"
    assert len(join_lines("x" * 100_000)) < 6_000


def narrow(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Let standard output and error be ASCII; returns what is written to both."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    return written


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("line", ["list", "--help", "info run", "eval run --data data", "info größe", "check größe"])
def test_narrow_encodings(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = narrow(monkeypatch)
    assert main(line.split()) in (0, 2)
    assert written.getvalue().decode("ascii")
    assert sys.stdout.errors == "strict"


def test_the_dash_of_a_missing_number_has_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    written = narrow(monkeypatch)
    with any_encoding():
        TerminalConsole().print(format_number(-1.0))
    assert written.getvalue() == b"\\u2013\n"


@pytest.mark.parametrize("target", ["-", "/dev/stdout", "link.json", "found.json"])
@pytest.mark.parametrize(
    "line", ["predict run data/images --threshold 0", "eval run --data data", "info run", "check data"]
)
@pytest.mark.usefixtures("hostile")
def test_json_is_ascii_and_whole(line: str, target: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    if target == "link.json":
        os.symlink("found.json", "link.json")
    assert main([*line.split(), "--json", target]) in (0, 1)
    written = capfdbinary.readouterr().out
    text = written if target in ("-", "/dev/stdout") else Path("found.json").read_bytes()
    assert isinstance(json.loads(text.decode("ascii")), dict | list)
    assert not Path("-").exists()


def run_in_shell(line: str) -> subprocess.CompletedProcess[str]:
    line = line.replace("boxwright", f"{shlex.quote(sys.executable)} -m boxwright")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment)


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize(
    "line",
    [
        "boxwright list | head -1; echo ${PIPESTATUS[0]}",
        "boxwright info run | true; echo ${PIPESTATUS[0]}",
        "boxwright predict run data/images --threshold 0 --json - | head -1; echo ${PIPESTATUS[0]}",
        "boxwright list --nothing 2>&1 | true; echo ${PIPESTATUS[0]}",
    ],
)
def test_a_reader_that_has_seen_enough(line: str) -> None:
    done = run_in_shell(line)
    assert done.stdout.splitlines()[-1] == "0", done
    assert "Traceback" not in done.stdout + done.stderr
    assert "BrokenPipe" not in done.stdout + done.stderr


def test_work_goes_on_where_nobody_reads_its_progress() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as file:
        console = NoteConsole(file=file)
        console.print("one")
        console.print("two")
        file.close = lambda: None  # type: ignore[method-assign]
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)
    assert console.quiet


@pytest.mark.parametrize("name", ["a b", "it's", "-x", "$(touch ran)", "ä ö", "a;b", "*"])
def test_printed_commands_can_be_pasted(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, name)
    words = shlex.split(quote_command("info", quote_path(Path(name) / "best.safetensors")))
    assert words[0] == "boxwright"
    assert main(words[1:]) == 0
    assert not Path("ran").exists()


def test_commands_of_training_are_quoted(recipe_file: Path, drawn: Path, tmp_path: Path, capsys: Capture) -> None:
    data = shutil.copytree(drawn, tmp_path / "my data")
    out = str(tmp_path / "a 'run'")
    assert main(["train", str(recipe_file), "--data", str(data), "--out", out, "--train.steps", "2"]) == 0
    printed = [line.partition("boxwright ")[2] for line in capsys.readouterr().err.splitlines() if "boxwright " in line]
    evaluate, predict = map(shlex.split, printed)
    assert evaluate == ["eval", f"{out}/best.safetensors", "--data", str(data), "--split", "val"]
    assert main(evaluate) == 0
    assert predict[1] == evaluate[1]


WITHOUT = """
import builtins, os, signal, sys
python_import = builtins.__import__
def import_module(name, globals=None, locals=None, fromlist=(), level=0):
    # Other projects ask for the name of the system, which is another one here.
    if name in ("resource", "fcntl", "pwd", "grp", "termios") and "boxwright" in (globals or {}).get("__name__", ""):
        raise ImportError(name)
    return python_import(name, globals, locals, fromlist, level)
builtins.__import__ = import_module
for name in ("SIGHUP", "SIGALRM", "SIGKILL", "SIGUSR1", "SIGQUIT", "SIGPIPE", "setitimer", "alarm"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("sched_getaffinity", "sysconf", "geteuid", "getuid", "mkfifo", "nice"):
    if hasattr(os, name):
        delattr(os, name)
from boxwright.cli.main import main
status = [main(line.split()) for line in sys.argv[1:]]
sys.exit(max(status))
"""
"""A system that lacks what Windows lacks."""


def test_without_what_windows_lacks(recipe_file: Path, tmp_path: Path) -> None:
    lines = (
        "draw --out set --train 6 --val 4 --image-size 64",
        f"train {recipe_file} --data set --out run --train.steps 2",
        f"train {recipe_file} --data set --out run --train.steps 2 --resume",
        "eval run --data set",
        "predict run set/images --out drawn",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *lines], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("rate", "left", "expected"),
    [
        (None, 3.0, ""),
        (8.24, None, ""),
        (8.24, 9.6, "8.2/s, 0:10 left"),
        (0.31, 3725.0, "0.31/s, 1:02:05 left"),
        (1234.5, 0.0, "1,234/s, 0:00 left"),
        (99.7, 61, "99.7/s, 1:01 left"),
    ],
)
def test_the_pace(rate: float | None, left: float | None, expected: str) -> None:
    assert describe_pace(rate, left) == expected


def test_progress_shows_rate_and_remaining_time() -> None:
    now = iter(range(0, 10_000, 2))
    observer = ConsoleObserver()
    observer.console = NoteConsole(file=io.StringIO(), force_terminal=True, width=100, get_time=lambda: next(now))
    with observer.track("evaluating") as progress:
        for done in range(8, 88, 8):
            progress(done, 88)
    text = Text.from_ansi(observer.console.file.getvalue()).plain
    assert "evaluating" in text
    assert re.search(r"\d+/88 [\d.]+/s, \d+:\d\d left", text)


def test_a_note_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    observer = ConsoleObserver()
    for line in ("both splits", "both splits", "another"):
        observer.note(line)
    observer.announce("both splits")
    assert capsys.readouterr().err.splitlines() == ["note: both splits", "note: another", "both splits"]
