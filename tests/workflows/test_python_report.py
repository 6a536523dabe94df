"""Reports on models: what their pages show, of detectors and exported files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import boxwright
from boxwright.cli.main import main
from boxwright.evaluation.error_kinds import KINDS
from boxwright.evaluation.evaluate import Evaluation

Capture = pytest.CaptureFixture[str]


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", page)


def test_a_run(rectangle_run: Path, rectangles: Path, tmp_path: Path) -> None:
    """Its curves are shown, and its errors add up with its detections."""
    result = boxwright.report(rectangle_run, rectangles, out=tmp_path / "new" / "page.html", num_images=3)
    page = result.path.read_text(encoding="utf-8")
    assert headings(page)[:3] == ["Training", "Classes", "Precision over recall"]
    assert {"Errors by kind", "What they cost, class by class", "Worst images", "Passport", "Settings"} <= set(
        headings(page)
    )
    assert all(f'<th scope="row">{kind}</th>' in page for kind in KINDS)
    assert isinstance(result.evaluation, Evaluation)
    assert f"<b>{result.evaluation.boxes.AP:.3f}</b>" in page
    assert 0 < page.count("<img src=") <= 3
    assert [path.name for path in result.path.parent.iterdir()] == ["page.html"]
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL))


def test_an_exported_file_has_the_errors_of_its_model(
    rectangle_run: Path, rectangle_file: Path, rectangles: Path, tmp_path: Path
) -> None:
    pages = [
        boxwright.report(model, rectangles, out=tmp_path / f"{number}.html", num_images=0).path.read_text()
        for number, model in enumerate((rectangle_run, rectangle_file))
    ]

    def costs(page: str) -> list[float]:
        section = page[page.index("<h2>Errors by kind") : page.index("<h2>What they cost")]
        return [float(cost) for cost in re.findall(r"<td[^>]*>(-?\d\.\d{3})</td>", section)]

    assert len(costs(pages[0])) == len(KINDS)
    assert max(costs(pages[0])) > 0
    # Scores near zero are equal to a few units of the last place, and some take another place.
    assert costs(pages[1]) == pytest.approx(costs(pages[0]), abs=0.005)
    assert "<img" not in pages[0]


def test_the_command(rectangle_run: Path, rectangles: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(rectangle_run), "--data", str(rectangles), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert f"report in {out}" in captured.out
    assert "AP50" in captured.out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], "which data set? give --data DIR"),
        (["--data", "DIR", "--threshold", "2"], "--threshold is between 0 and 1, not 2"),
        (["--data", "DIR", "--num-images", "-1"], "--num-images is at least 0, not -1"),
        (["--data", "DIR", "--out", "."], ". is a folder; give the name of a file"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ],
)
def test_bad_input(
    typed: list[str],
    message: str,
    rectangle_run: Path,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(rectangle_run), *typed]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
