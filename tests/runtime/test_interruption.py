"""Signals in a process that has run files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stand_in_export import write_stand_in

LINES = """
import gc, signal, sys
import numpy as np
from boxwright_runtime import Runtime
Runtime(sys.argv[1]).predict(np.zeros((20, 30, 3), np.uint8))
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_after_openvino_is_heard(tmp_path: Path) -> None:
    """Its plugin freed the stack of signals with its core, on CPUs with AMX: the process crashed."""
    file = write_stand_in(tmp_path / "small.xml")
    done = subprocess.run([sys.executable, "-c", LINES, str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr
