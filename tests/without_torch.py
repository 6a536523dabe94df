"""Processes in which neither torch nor Boxwright can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

BLOCKED = ("torch", "torchvision", "jaxtyping", "hotcoco", "boxwright")
"""Packages that the runtime must do without, all of which are installed where tests run."""

BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
BLOCKED = {BLOCKED}
"""


PREDICT = """
    import numpy as np
    from boxwright_runtime import Runtime
    for path in sys.argv[1:]:
        detections = Runtime(path, threads=1).predict([np.full((30, 40, 3), 153, np.uint8)])[0]
        print(detections.boxes.tolist(), detections.names, detections.masks[0]["size"])
    print(sorted(set(BLOCKED) & set(sys.modules)))
    """
"""Code that predicts with the stand-ins whose paths are its arguments."""

PREDICTED = "[[0.0, 0.0, 40.0, 30.0], [0.0, 0.0, 20.0, 15.0]] ['thing', 'quarter'] [30, 40]\n"
"""The line that it prints for each."""


def run_without_torch(code: str, *arguments: str | Path, import_path: Sequence[Path] | None = None) -> str:
    """Run code in a process in which none of ``BLOCKED`` can be imported, and return what it prints.

    Args:
        code: may be indented as a whole.
        arguments: in ``sys.argv`` from 1.
        import_path: folders that packages are imported from before those that are installed; that of this process
            where None.
    """
    environment = dict(os.environ)
    if import_path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, import_path))
    script = BLOCK + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
