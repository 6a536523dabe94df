"""A service in a process of its own, for benchmarks: its address and its memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxwright_runtime import Runtime
from boxwright_runtime.answers import detection_rows


@contextmanager
def serve_in_process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start ``boxwright serve`` at a free port; give the process, which is ended, and the port."""
    command = [sys.executable, "-m", "boxwright", "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.search(r":(\d+)/", line)
        if address is None:
            raise RuntimeError(line + process.stderr.read())
        yield process, int(address[1])
    finally:
        process.terminate()
        process.wait()


def memory_mib(pid: int) -> float:
    """Read the memory of a process and of those that it has forked; what they have in common counts once."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for one in (pid, *children):
        total += int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.MULTILINE)[1])
    return total / 1024


def draw_images(count: int, seed: int = 0) -> list[bytes]:
    """Draw colored rectangles on noise, of several sizes; half of them PNG, half of them JPEG."""
    rng, files = np.random.default_rng(seed), []
    for number in range(count):
        height, width = ((120, 160), (160, 120), (240, 320))[number % 3]
        pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        for color in ((220, 40, 40), (40, 40, 220)) * 2:
            top, left = rng.integers(0, height - 50), rng.integers(0, width - 50)
            down, across = rng.integers(20, 50, 2)
            pixels[top : top + down, left : left + across] = color
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG" if number % 2 else "JPEG")
        files.append(buffer.getvalue())
    return files


def expected_rows(file: str, images: list[bytes], threshold: float) -> list[list[dict[str, Any]]]:
    """Predict images one by one with the file itself."""
    runtime = Runtime(file, threads=1)
    return [json.loads(json.dumps(detection_rows("", runtime.predict(one, threshold=threshold)))) for one in images]


def agree(
    actual: list[dict[str, Any]],
    expected: list[dict[str, Any]],
    threshold: float,
    *,
    score: float = 1e-3,
    side: float = 0.1,
) -> bool:
    """Tell whether rows are the same up to rounding, in any order, but for those at the threshold."""
    left = list(actual)
    for row in expected:
        same = [one for one in left if _is_same(one, row, score, side)]
        if same:
            left.remove(same[0])
        elif row["score"] > threshold + score:
            return False
    return all(row["score"] <= threshold + score for row in left)


def _is_same(one: dict[str, Any], other: dict[str, Any], score: float, side: float) -> bool:
    return (
        one["category_id"] == other["category_id"]
        and abs(one["score"] - other["score"]) <= score
        and np.abs(np.subtract(one["bbox"], other["bbox"])).max() <= side
    )
