"""``python -m benchmarks``: all comparisons with other projects, see ``comparisons.py``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from boxwright.cpu_quota import set_threading

if __name__ == "__main__":
    # Benchmarks are scripts, which import each other by their names alone.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    # As the command line does, before torch is imported.
    set_threading(os.environ)
    from comparisons import main

    sys.exit(main())
