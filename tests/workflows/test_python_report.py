"""Reports on models: what their pages show, of detectors and exported files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import boxwright
from boxwright.cli.main import main
from boxwright.evaluation.error_kinds import KINDS
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.score_calibration import ScoreScaling, calibrate
from boxwright.passport import TrainingData
from boxwright.score_tuning import ScoreTuning

Capture = pytest.CaptureFixture[str]


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", page)


def test_a_run(rectangle_run: Path, rectangles: Path, tmp_path: Path) -> None:
    """Its curves are shown, and its errors add up with its detections."""
    result = boxwright.report(rectangle_run, rectangles, out=tmp_path / "new" / "page.html", num_images=3)
    page = result.path.read_text(encoding="utf-8")
    assert set(headings(page)) >= {
        *("Classes", "Precision over recall", "Errors by kind", "What they cost, class by class", "Confusion"),
        *("Sizes and densities", "Operating points", "Calibration", "Worst images", "Training", "Data", "Passport"),
        "Settings",
    }
    assert all(f'<th scope="row">{kind}</th>' in page for kind in KINDS)
    assert isinstance(result.evaluation, Evaluation)
    assert f"<b>{result.evaluation.boxes.AP:.3f}</b>" in page
    assert 0 < page.count("<img src=") <= 3
    assert_sections_have_numbers(page, result.evaluation)
    assert [path.name for path in result.path.parent.iterdir()] == ["page.html"]
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL))


def assert_sections_have_numbers(page: str, evaluation: Evaluation) -> None:
    """Sections say what the evaluation says."""
    confused = page[page.index("<h2>Confusion") : page.index("<h2>Sizes and")]
    counts = evaluation.confusion.counts.tolist()
    cells = [[int(one) for one in re.findall(r">(\d+)</td>", row)] for row in confused.split("<tr>")[2:]]
    assert cells[: len(counts)] == [[count for count in row if count] for row in counts]
    operating = page[page.index("<h2>Operating points") : page.index("<h2>Calibration")]
    for point in evaluation.thresholds:
        assert f'data-value="{point.threshold}"' in operating
    captions = re.findall(r"<summary>([^<]*): F1", operating)
    assert captions == [
        "The best F1",
        "Precision of 0.9, with as much recall as there is",
        "Recall of 0.9, with as much precision as there is",
        "Score of at least 0.5",
    ]
    assert f"calibration error is {evaluation.calibration.error:.3f}" in page
    sizes = page[page.index("<h2>Sizes and") : page.index("<h2>Operating")]
    assert all(f"{one.AP:.3f}</td>" in sizes for one in evaluation.slices if one.AP > 0)
    num_objects = sum(len(record.labels) for record in evaluation.data.records)
    assert f"<dt>objects</dt><dd>{num_objects}</dd>" in page


def test_tuned_thresholds_are_shown_first(rectangle_run: Path, rectangles: Path, tmp_path: Path) -> None:
    detector = boxwright.load(rectangle_run)
    count = len(detector.categories)
    data = TrainingData(name="other", num_images=9)
    detector.tuning = ScoreTuning(
        target="f1", thresholds=(0.125,) * count, temperatures=(2.0,) * count, shifts=(-1.0,) * count, data=data
    )
    result = boxwright.report(detector, rectangles, out=tmp_path / "page.html", num_images=0)
    page = result.path.read_text(encoding="utf-8")
    assert "<summary>Stored in the model, f1 on other: F1" in page
    assert page.count('<td data-value="0.125">0.125</td>') == count
    assert isinstance(result.evaluation, Evaluation)
    matched = result.evaluation.matched
    scores = ScoreScaling(detector.tuning.temperatures, detector.tuning.shifts).apply(matched.scores, matched.labels)
    assert f"With the scales that the model has it is {calibrate(matched.with_scores(scores), count).error:.3f}" in page


def test_an_exported_file_has_the_errors_of_its_model(
    rectangle_run: Path, rectangle_file: Path, rectangles: Path, tmp_path: Path
) -> None:
    # An object of another class, which is an error whatever the detector has learned.
    mislabeled = shutil.copytree(rectangles, tmp_path / "mislabeled")
    annotations = mislabeled / "annotations" / "val.json"
    document = json.loads(annotations.read_text())
    first, others = document["annotations"][0], [one["id"] for one in document["categories"]]
    first["category_id"] = next(one for one in others if one != first["category_id"])
    annotations.write_text(json.dumps(document))
    pages = [
        boxwright.report(model, mislabeled, out=tmp_path / f"{number}.html", num_images=0).path.read_text()
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
    rectangles: Path,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    there = [str(rectangles) if one == "DIR" else one for one in typed]
    assert main(["report", str(rectangle_run), *there]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
