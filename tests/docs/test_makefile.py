"""Targets of the Makefile that take a name."""

from __future__ import annotations

import re
import subprocess

import pytest
from pages import ROOT


def dry_run(*arguments: str) -> str:
    """Let make print the commands of a target."""
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("name", "test", "module"),
    [
        ("fpn", "tests/necks/test_fpn.py", "boxwright.necks.fpn"),
        ("boxes", "tests/ops/test_boxes.py", "boxwright.ops.boxes"),
        ("detector", "tests/test_detector.py", "boxwright.detector"),
    ],
)
def test_the_tests_of_one_file(name: str, test: str, module: str) -> None:
    command = dry_run("part", f"NAME={name}")
    assert f" {test} " in command
    assert f"--jaxtyping-packages={module},beartype.beartype" in command
    assert f"-k '(test_{name}.py or [{name}]) and not exports'" in command


def test_conformance_runs_what_is_marked_or_named() -> None:
    command = dry_run("conformance")
    assert " -m conforms " in command
    assert "tests/parity/test_transformers_rtdetr.py" in command
    assert "tests/necks/test_fpn.py" in command
    assert "--originals" not in command
    command = dry_run("conformance", "TEST=tests/any.py", "ORIGINALS=DIR")
    assert "tests/any.py" in command
    assert "tests/necks/test_fpn.py" not in command
    assert "--record-conformance docs/conformance.json --originals DIR" in command


def test_no_test_is_left_out_or_run_twice() -> None:
    """The second command leaves out the folders of the first, whose types are checked, and nothing else."""
    typed, untyped = (line.split(" -m pytest ")[1].split() for line in dry_run("test").splitlines() if "pytest" in line)
    folders = [word for word in typed if word.startswith("tests/")]
    assert folders
    assert all((ROOT / folder).is_dir() for folder in folders)
    assert [word.removeprefix("--ignore=") for word in untyped if word.startswith("--ignore=")] == folders
    assert not [word for word in untyped if re.match("tests|-k", word)]
