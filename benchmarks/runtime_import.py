"""Seconds that importing takes, each in a fresh process, in turn.

::

    python benchmarks/runtime_import.py
    python benchmarks/runtime_import.py --file model.onnx --rounds 20

With ``--file`` also until its first detections. Prints medians, and fails where the runtime takes more than 0.6 s or
torch is imported with it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

LIMIT = 0.6
"""Seconds that importing the runtime may take."""

STATEMENTS = {
    "python alone": "",
    "numpy and Pillow": "import numpy, PIL.Image",
    "boxwright_runtime": "from boxwright_runtime import Runtime",
    "boxwright_runtime and onnxruntime": "from boxwright_runtime import Runtime; import onnxruntime",
    "boxwright.Detector": "from boxwright import Detector",
}

CHECK = "; import sys; assert 'torch' not in sys.modules"


def measure(statement: str) -> float:
    """Run a statement in a process of its own; return its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", help="an exported file that is run once")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    statements = dict(STATEMENTS)
    statements["boxwright_runtime"] += CHECK
    if options.file is not None:
        image = "import numpy; image = numpy.zeros((480, 640, 3), 'uint8')"
        statements["first detections"] = (
            f"from boxwright_runtime import Runtime; {image}; Runtime({options.file!r}).predict(image)" + CHECK
        )
    seconds: dict[str, list[float]] = {name: [] for name in statements}
    for round_number in range(options.rounds + 1):
        for name, statement in statements.items():
            taken = measure(statement)
            if round_number:  # the first one reads files that the system then remembers
                seconds[name].append(taken)
    alone = statistics.median(seconds["python alone"])
    for name, times in seconds.items():
        print(f"{name:36} {statistics.median(times):.3f} s, {statistics.median(times) - alone:.3f} s more than python")
    return int(statistics.median(seconds["boxwright_runtime"]) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
