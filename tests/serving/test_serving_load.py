"""A service under many clients, some of them hostile, for as long as a slow test may take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_lost_or_wrong_and_memory_is_flat(rectangle_file: Path, workers: int) -> None:
    """Memory may still grow a little in so short a time: the full length holds it to 5 %."""
    options = ["--clients", "64", "--seconds", "40", "--queue", "16", "--growth", "0.15", "--workers", str(workers)]
    script = ROOT / "benchmarks" / "serving_load.py"
    done = subprocess.run([sys.executable, str(script), str(rectangle_file), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults" in done.stdout
    for outcome in ("good: 200", "good: 429", "slow: 200", "too many bytes"):
        assert outcome in done.stdout
