"""The scripts of docs/clusters, with two hosts that are both this one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import ROOT
from PIL import Image

from passing_detector import gray
from stand_in_export import write_stand_in

SCRIPTS = sorted((ROOT / "docs" / "clusters").glob("*.sh"))

STAND_INS = {
    # Each runs here what it would run on another host.
    "ssh": 'shift 2; exec bash -c "$*"',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": "echo one; echo two",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    page = (ROOT / "docs" / "large-folders.md").read_text(encoding="utf-8")
    assert f"](clusters/{script.name})" in page
    assert len(SCRIPTS) == 2


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'boxwright[ray]'")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_predict(script: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "photos").mkdir()
    for index in range(40):
        Image.fromarray(gray(0.02 * index)).save(tmp_path / "photos" / f"{index}.png")
    model = write_stand_in(tmp_path / "m.onnx")
    number = random.SystemRandom().randrange(1000, 9000)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PORT": str(20_000 + number),
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NODELIST": "one,two",
    }
    arguments = ["other"] if script.name == "two-hosts.sh" else []
    command = ["bash", str(script), *arguments, str(model), str(tmp_path / "photos"), str(tmp_path / "out")]
    with (tmp_path / "shown").open("w+") as shown:
        process = subprocess.Popen(command, env=environment, stdout=shown, stderr=shown, start_new_session=True)
        try:
            status = process.wait(200)
        finally:
            # What a script should have ended, and has not.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
    text = (tmp_path / "shown").read_text()
    assert status == 0, text
    assert "objects in 40 images, in 1 shard in" in text
