"""The two distributions: boxwright-runtime alone, and boxwright, which contains it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
from test_import import PREDICT, PREDICTED

from boxwright import __version__
from stand_in_export import write_stand_in
from without_torch import run_without_torch

ROOT = Path(__file__).parents[2]


def test_what_it_needs_is_what_boxwright_needs_too() -> None:
    own = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text())["project"]
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [name.partition(">")[0] for name in own["dependencies"]] == ["numpy", "pillow"]
    assert set(own["dependencies"]) <= set(whole["dependencies"])
    for name, needed in own["optional-dependencies"].items():
        extras = [one for extra in whole["optional-dependencies"].values() for one in extra]
        # An extra is named after its package, or as the one of Boxwright that has the same.
        of_package = [one for one in extras if one.startswith(f"{name}>")]
        assert needed == (of_package or whole["optional-dependencies"][name]), name
    for name in ("requires-python", "license"):
        assert own[name] == whole[name]


def build_wheel(project: Path, target: Path) -> Path:
    """Build the wheel of a project; nothing is downloaded."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling, which builds wheels, is not installed")
def test_wheels(tmp_path: Path) -> None:
    """Exported files are run from the unpacked wheel alone; the other wheel has the same files."""
    wheel = build_wheel(ROOT / "runtime", tmp_path / "runtime")
    assert wheel.name.startswith(f"boxwright_runtime-{__version__}-py3-none-any")
    names = set(ZipFile(wheel).namelist())
    sources = {f"boxwright_runtime/{path.name}" for path in (ROOT / "src" / "boxwright_runtime").glob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert {"boxwright_runtime/py.typed", "boxwright_runtime/LICENSE"} <= names
    ZipFile(wheel).extractall(tmp_path / "unpacked")
    files = [write_stand_in(tmp_path / name, masks="box") for name in ("a.onnx", "a.xml")]
    folder = tmp_path / "unpacked"
    where = "import boxwright_runtime; assert boxwright_runtime.__file__.startswith(sys.argv.pop()), sys.path\n"
    printed = run_without_torch(where + PREDICT.replace("\n    ", "\n"), *files, folder, import_path=[folder])
    assert printed == f"{PREDICTED * 2}[]\n"
    whole = set(ZipFile(build_wheel(ROOT, tmp_path / "whole")).namelist())
    assert sources <= whole
    assert "boxwright/detector.py" in whole
