"""Streams for ever: memory stays what it is, and ids have no gap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOURS_12 = 12 * 60 * 60 * 10
"""Frames of 12 hours at 10 a second."""


@pytest.mark.parametrize("num_frames", [6000, pytest.param(HOURS_12, marks=pytest.mark.slow)])
def test_memory_is_flat_and_ids_have_no_gap(num_frames: int) -> None:
    program = Path(__file__).with_name("endless_stream.py")
    command = [sys.executable, str(program), str(num_frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    early, late, num_objects, num_crossings = map(int, done.stdout.split())
    assert late - early < 4096
    # An object comes every 7.8 s at most in each of 8 lanes, and its id may change at most once in a while.
    passed = num_frames / 10 * 90 / 700 * sum(1 + lane / 10 for lane in range(8))
    assert num_objects == pytest.approx(passed, rel=0.1, abs=20)
    assert num_crossings == pytest.approx(passed, rel=0.05, abs=12)
