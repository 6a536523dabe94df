"""Adding a part works as its page says, in a copy of the whole repository, and no other file has to change for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ADDING, ROOT, blocks

TOOLS = Path(sys.executable).parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-x", "-o", "addopts=")
NETWORKS_ALONE = ["--deselect", "tests/docs/test_tables.py::test_the_table_of_combinations_is_true"]
"""No reader changes networks."""
CHECKS = (
    [str(TOOLS / "ruff"), "format", "--check", "src", "tests"],
    [str(TOOLS / "ruff"), "check", "src", "tests"],
    [str(TOOLS / "lint-imports"), "--no-cache"],
    [*PYTEST, "--noconftest", "tests/rules"],
    [*PYTEST, "-m", "not slow", "tests/docs/test_tables.py", "tests/compose/test_parts.py"],
)
"""Those checks of ``make check`` that a new part could fail, beside the contract tests, which the page runs."""


def copy_repository(target: Path) -> None:
    """Copy all files of the repository, as somebody has them who clones it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=target, check=True)


def files_of(page: Path) -> list[str]:
    """Files that a page tells its reader to write."""
    matches = (re.match(r"# (\S+/\S+\.py)\n", block.text) for block in blocks(page) if block.language == "python")
    return [match[1] for match in matches if match]


def run_in(folder: Path, command: list[str]) -> None:
    """Run a command in a copy of the repository, with the package of that copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, " ".join(command) + "\n" + done.stdout + done.stderr


@pytest.mark.parametrize(
    "page",
    [page if page.stem == "add-a-reader" else pytest.param(page, marks=pytest.mark.slow) for page in ADDING],
    ids=lambda page: page.stem,
)
def test_adding_a_part_takes_one_file_and_one_test(page: Path, folder: Path) -> None:
    part, test = files_of(page)
    assert part.startswith("src/boxwright/")
    assert test.startswith("tests/")
    copy_repository(folder)
    run_in(folder, [sys.executable, str(folder / "tests/docs/pages.py"), str(folder / "docs" / page.name), "."])
    for file in (part, test):
        assert (folder / file).is_file()
        assert not (ROOT / file).exists()
    for command in CHECKS:
        is_of_reader = page.stem == "add-a-reader" and "tests/docs/test_tables.py" in command
        run_in(folder, command + NETWORKS_ALONE * is_of_reader)
    changed = subprocess.run(["git", "diff", "--name-only"], cwd=folder, capture_output=True, text=True, check=True)
    assert changed.stdout == ""
