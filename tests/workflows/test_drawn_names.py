"""Pages name the classes whose names no font of this machine can draw, once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import boxwright
from boxwright.drawing import glyphs
from boxwright.workflows.observer import Observer

NAMES = ("细胞", "血")


class Notes(Observer):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


def test_reports_comparisons_and_checks(
    rectangle_run: Path, rectangles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glyphs, "list_font_files", tuple)
    data = shutil.copytree(rectangles, tmp_path / "data")
    for file in (data / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        for category, name in zip(content["categories"], NAMES, strict=True):
            category["name"] = name
        file.write_text(json.dumps(content))
    detector = boxwright.load(rectangle_run)
    detector.categories = tuple(replace(one, name=name) for one, name in zip(detector.categories, NAMES, strict=True))
    notes = [Notes(), Notes(), Notes()]
    boxwright.report(detector, data, out=tmp_path / "report.html", num_images=2, observer=notes[0])
    page = tmp_path / "compared.html"
    boxwright.compare([detector, detector], data, num_samples=100, latency=False, html=page, observer=notes[1])
    boxwright.check(data, html=tmp_path / "check.html", observer=notes[2])
    lines = [[line for line in own.lines if "no font has the glyphs" in line] for own in notes]
    assert [len(own) for own in lines] == [1, 0, 1]  # of two equal models no image is shown
    assert all("= 细胞" in line and "= 血" in line for own in lines for line in own)
