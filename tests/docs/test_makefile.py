"""Targets of the Makefile that take a name."""

from __future__ import annotations

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
