"""Nothing in the current folder is imported that the user did not name: modules planted there, and every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import boxwright

PLANTED = (
    "__future__", "ast", "dill", "difflib", "json", "numpy", "pickle", "PIL", "resource", "rich", "safetensors",
    "socket", "timm", "torch", "typing", "yaml",
)  # fmt: skip
"""Modules that Python has not imported when it has started."""

SOURCE = str(Path(boxwright.__file__).parents[1])

START = "import sys; from boxwright.__main__ import run; sys.exit(run())"
"""The installed command."""


def plant(folder: Path) -> Path:
    """Write modules that tell that they were imported, and empty folders that look like packages."""
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"import os\nos.makedirs({str(folder / 'ran' / name)!r})\n")
    for name in ("tabulate", "scipy", "tensorboard"):
        (folder / name).mkdir()
    return folder


def run(
    folder: Path, arguments: Sequence[str], *, path: str = SOURCE, python: Sequence[str] = ("-m", "boxwright")
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, and make sure that nothing there was imported."""
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, *python, *arguments], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert not (folder / "ran").exists(), sorted((folder / "ran").iterdir())
    return done


@pytest.mark.parametrize("path", [SOURCE, f"{SOURCE}:", f".:{SOURCE}", f"{SOURCE}::"])
def test_python_m(tmp_path: Path, path: str) -> None:
    done = run(plant(tmp_path), ["train", "rtdetr_tiny", "--data", "none"], path=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_command_that_needs_torch(tmp_path: Path) -> None:
    done = run(plant(tmp_path), ["info", "rtdetr_tiny", "--image-size", "64", "--json", "-"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["params"] > 0


def test_the_installed_command_where_the_path_has_an_empty_entry(tmp_path: Path) -> None:
    done = run(plant(tmp_path), ["list"], path=f"{SOURCE}:", python=("-P", "-c", START))
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_that_a_command_starts(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\nfrom boxwright.__main__ import leave_out_current_folder\nleave_out_current_folder()\n"
        "import multiprocessing\n"
        "assert subprocess.run([sys.executable, '-c', 'import socket, typing, pickle']).returncode == 0\n"
        "multiprocessing.set_start_method('spawn')\nmultiprocessing.Process(target=print).start()\n"
    )
    done = run(plant(tmp_path), [], path=f"{SOURCE}:", python=("-P", "-c", code))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_trial_of_a_training_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_recipe: dict[str, object]
) -> None:
    from boxwright.compose.recipes import resolve
    from boxwright.workflows.fit_trial import Trial
    from boxwright.workflows.worst_step import run_in_process

    recipe = resolve(tiny_recipe).recipe.to_dict()
    trial = Trial(
        recipe=recipe, categories=[(1, "a")], input_size=(64, 64), labels=[[0]], boxes=[[[1.0, 1.0, 30.0, 30.0]]],
        device="cpu", threads=1, memory=None, seconds=20.0,
    )  # fmt: skip
    monkeypatch.chdir(plant(tmp_path))
    assert run_in_process(trial).failure is None
    assert not (tmp_path / "ran").exists()


def test_the_library_leaves_the_path_alone() -> None:
    code = (
        "import sys, os\nbefore = list(sys.path), dict(os.environ)\n"
        "import boxwright, boxwright.__main__\nfrom boxwright.cli.main import main\n"
        "boxwright.build('rtdetr_tiny', num_classes=2)\nmain(['--version'])\n"
        "assert before == (sys.path, dict(os.environ)), sys.path"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_every_command(tmp_path: Path, recipe_file: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    plant(folder)
    images = "set/images/val"
    lines = (
        "draw --out set --train 6 --val 4 --image-size 64",
        f"train {recipe_file} --data set --out run --train.steps 2 --train.runtime.workers 2",
        f"train {recipe_file} --data set --out run --train.steps 2 --resume",
        "check set",
        f"check set --recipe {recipe_file} --try",
        "eval run --data set --workers 1 --json metrics.json",
        f"predict run {images} --json found.json",
        "info run",
        "convert run converted.safetensors",
        "convert-data set voc --to voc",
        "crop set --out crops",
        f"demo --out demo --recipe {recipe_file} --budget 2s",
    )
    for line in lines:
        help_text = run(folder, [line.split()[0], "--help"]).stdout
        assert help_text
        done = run(folder, line.split(), path=f"{SOURCE}:")
        assert "Traceback" not in done.stderr, (line, done.stderr)
        assert done.returncode in (0, 1), (line, done.stderr)
