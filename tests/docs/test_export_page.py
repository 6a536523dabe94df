"""The script that needs nothing of Boxwright, on a file that was exported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pages import ROOT, blocks

import boxwright
from boxwright.compose.detectors import build
from boxwright.structures import Category

BLOCKED = ("torch", "boxwright", "boxwright_runtime", "torchvision", "onnx")

START = """
import runpy, sys
for name in {names}:
    sys.modules[name] = None
runpy.run_path("ten_lines.py", run_name="__main__")
"""


def script() -> str:
    """Read the script of the page, with any score."""
    page = ROOT / "docs" / "runtime.md"
    (text,) = (block.text for block in blocks(page) if block.text.startswith("# ten_lines.py\n"))
    assert "score >= 0.4" in text
    return text.replace("score >= 0.4", "score >= 0.0")


@pytest.fixture
def classifier(folder: Path) -> Path:
    """A small file that takes a second to export, under the name that the page has."""
    torch.manual_seed(0)
    detector = build(
        "resnet18_classifier",
        categories=[Category(3, "cat"), Category(7, "dog")],
        overrides={"backbone.width": 8},
    )
    boxwright.export(detector, out=folder / "model.onnx", overwrite=True)
    return folder


def test_the_ten_lines_need_nothing_of_ours(classifier: Path) -> None:
    (classifier / "ten_lines.py").write_text(script())
    done = subprocess.run(
        [sys.executable, "-c", START.format(names=BLOCKED)], cwd=classifier, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    names, scores = zip(*(re.fullmatch(r"(\w+) (\d\.\d+) \[.*\]", line).groups() for line in lines), strict=True)  # type: ignore[union-attr]
    assert sorted(names) == ["cat", "dog"]
    assert sum(map(float, scores)) == pytest.approx(1, abs=0.02)


def test_there_are_ten_lines() -> None:
    code = [line for line in script().splitlines() if line and not line.startswith(("#", "import", "from"))]
    assert len(code) <= 10
