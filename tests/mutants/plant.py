"""Plants the project's silent faults one at a time, runs the tests that should see them, and prints what survives.

``python tests/mutants/plant.py [-j N] [--sample N] [AREA | FILE | PART OF A NAME ...]``. The working tree is left
alone: faults are planted in copies of ``src``. Ends with status 1 where a fault survives or its row is of no use.

The libraries are imported once, in the process that forks one more for each fault: importing them takes longer than
most of the tests.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from faults import PACKAGES, ROOT, Fault, read_faults

TIMEOUT = 300.0
"""Seconds that the tests of a row may take."""

CAUGHT, SURVIVED = "caught", "SURVIVED"
OPTIONS = ("-o", "addopts=", "-p", "no:cacheprovider", "-m", "not slow", "-x", "-q", "--tb=line", "-rfE")
LIBRARIES = (
    "torch",
    "torchvision.transforms.v2",
    "timm",
    "scipy.optimize",
    "hypothesis",
    "jaxtyping",
    "hotcoco",
    "rich",
)


class Outcome(NamedTuple):
    """Verdict on a fault: ``caught``, or why not; the test that saw it, and the seconds that it took."""

    fault: Fault
    verdict: str
    seen_by: str
    seconds: float


class Started(NamedTuple):
    """A process that runs the tests of a fault: the copy that they run with, the file that they print to."""

    fault: Fault
    copy: Path
    printed: Path
    start: float


def main(arguments: Sequence[str]) -> int:
    """Plant what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="plant.py", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="areas, files or parts of names (default: all)")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="faults that are planted at a time (default: 1)")
    parser.add_argument("--sample", type=int, help="so many of them, drawn at random")
    parser.add_argument("--no-check", action="store_true", help="do not run the tests without a fault first")
    options = parser.parse_args(arguments)
    try:
        faults = read_faults(tuple(options.names))
    except ValueError as error:
        parser.error(str(error))
    if options.sample is not None:
        faults = random.sample(faults, min(options.sample, len(faults)))
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    sys.dont_write_bytecode = True
    for name in LIBRARIES:
        importlib.import_module(name)
    with TemporaryDirectory() as folder:
        copies = [copy_source(Path(folder, str(index))) for index in range(max(1, options.jobs))]
        if not options.no_check:
            check_sound(copies[0], faults)
        outcomes = plant_all(faults, copies)
    others = [one for one in outcomes if one.verdict != CAUGHT]
    print(f"\n{len(outcomes) - len(others)} of {len(outcomes)} faults are caught")
    for one in others:
        print(f"{one.verdict}: {one.fault.area}: {one.fault.name} ({one.fault.file})")
    return 1 if others else 0


def copy_source(folder: Path) -> Path:
    """Copy the packages into a folder, compiled, and return the folder that belongs on the import path."""
    for package in PACKAGES:
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(folder, quiet=1)
    return folder


def check_sound(copy: Path, faults: Sequence[Fault]) -> None:
    """Make sure that the tests pass without a fault: else each fault would seem caught."""
    tests = list(dict.fromkeys(test for fault in faults for test in fault.tests))
    files = {test for test in tests if "::" not in test}
    tests = [test for test in tests if test in files or test.split("::")[0] not in files]
    printed = copy / "printed.txt"
    _, status = os.waitpid(start_tests(copy, tests, printed), 0)
    text = printed.read_text(encoding="utf-8", errors="replace").strip()
    if os.waitstatus_to_exitcode(status):
        print(text[-4000:])
        raise SystemExit("the tests fail without any fault")
    print(f"without a fault: {text.splitlines()[-1]}", flush=True)


def plant_all(faults: Sequence[Fault], copies: Sequence[Path]) -> list[Outcome]:
    """Plant each fault in one of the copies, as many at a time as there are, and print what becomes of it."""
    waiting, free, running = list(reversed(faults)), list(copies), dict[int, Started]()
    outcomes: list[Outcome] = []
    while waiting or running:
        while waiting and free:
            fault, copy = waiting.pop(), free.pop()
            printed = copy / "printed.txt"
            set_source(copy, fault, fault.plant(fault.path.read_text(encoding="utf-8")))
            running[start_tests(copy, fault.tests, printed)] = Started(fault, copy, printed, time.monotonic())
        for process, started in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            seconds = time.monotonic() - started.start
            if not ended and seconds < TIMEOUT:
                continue
            if not ended:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
            outcomes.append(judge(started, os.waitstatus_to_exitcode(status) if ended else None, seconds))
            set_source(started.copy, started.fault, None)
            free.append(started.copy)
            del running[process]
        time.sleep(0.05)
    return outcomes


def set_source(copy: Path, fault: Fault, text: str | None) -> None:
    """Write a fault into a copy, or, with None, what stands in the source."""
    target = fault.inside(copy)
    if text is not None:
        target.write_text(text, encoding="utf-8")
    else:
        shutil.copy2(fault.path, target)  # with its time, for which the compiled file is valid


def judge(started: Started, status: int | None, seconds: float) -> Outcome:
    """Read what became of a fault, and print it."""
    fault, text = started.fault, started.printed.read_text(encoding="utf-8", errors="replace").strip()
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    verdict = {0: SURVIVED, 1: CAUGHT, None: "did not end"}.get(status)
    if verdict is None:
        # Tests that cannot be collected say nothing of a fault that is silent.
        verdict = f"no tests (status {status}: {(text or 'nothing printed').splitlines()[-1]})"
    seen_by = failed[0] if failed and verdict == CAUGHT else ""
    print(f"{verdict:8} {seconds:5.1f} s  {fault.area}: {fault.name} {seen_by and 'by ' + seen_by}", flush=True)
    return Outcome(fault, verdict, seen_by, seconds)


def start_tests(copy: Path, tests: Sequence[str], printed: Path) -> int:
    """Run tests with the package of a copy, in a process of its own and a group of its own; return its id."""
    process = os.fork()
    if process:
        return process
    status = 3
    try:
        os.setpgid(0, 0)
        output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(ROOT)
        os.environ["PYTHONPATH"] = str(copy)
        sys.path.insert(0, str(copy))
        status = int(importlib.import_module("pytest").main([*OPTIONS, *(f"tests/{test}" for test in tests)]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
