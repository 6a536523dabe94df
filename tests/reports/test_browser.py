"""Pages of all commands in a real browser: no error, tables that sort, images that open, readable in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from chromium import use_page
from test_report import write

import boxwright
from boxwright.cli.main import main
from boxwright.data.open import open_data
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.detector import Detector
from boxwright.evaluation.class_accuracy import class_accuracy
from boxwright.evaluation.evaluate import ClassEvaluation
from boxwright.reports.report import ReportFacts
from boxwright.workflows import demo
from boxwright.workflows.report import select_worst, write_evaluation
from boxwright_runtime.detections import Detections
from tiny_recipe import TINY_RECIPE

STUDY = """
base: rtdetr_tiny
data: {train: 4, val: 2, image_size: 64}
overrides: {image_size: 64, train: {steps: 2, batch_size: 1, schedule: {evaluations: 2}}}
seeds: [0, 1]
variations: {one layer: {head.decoder.num_layers: 1}, two: {head.decoder.num_layers: 2}}
"""

SCHEMES = ("light", "dark")


def assert_works(page: Path, folder: Path, *, has_images: bool = True, has_tables: bool = True) -> None:
    """Use a page in light and dark, and in a narrow window."""
    for index, (scheme, width) in enumerate([*((one, 1280) for one in SCHEMES), ("light", 700)]):
        (own := folder / str(index)).mkdir()
        result = use_page(page, own, scheme="dark" if scheme == "dark" else "light", width=width)
        assert result["failures"] == []
        assert result["isDark"] is (scheme == "dark")
        assert (result["images"] > 0) is has_images
        assert (result["columns"] > 0) is has_tables
        assert result["links"] > 2 or not has_tables


def test_a_page(tmp_path: Path) -> None:
    write(tmp_path / "page.html")
    result = use_page(tmp_path / "page.html", tmp_path)
    assert result["failures"] == []
    assert (result["images"], result["columns"] > 0, result["links"]) == (2, True, 7)


def test_the_checks_see_faults(tmp_path: Path) -> None:
    """Text without contrast, a page that is too wide, an image that is none, tables that do not sort."""
    page = tmp_path / "page.html"
    text = write(page)
    text = text.replace("--muted: #59626d", "--muted: #c9c9c9").replace("base64,/9j/", "base64,AAAA", 1)
    text = text.replace("head, () => sortBy(head)", "head, () => 0").replace(
        "<main>", '<main><i style="width: 3000px; display: block">wide</i>'
    )
    page.write_text(text)
    failures = "\n".join(use_page(page, tmp_path)["failures"])
    for fault in ("contrast 1.", "is 3", "is not shown", "no direction of class"):
        assert fault in failures


@pytest.mark.slow
def test_a_report(rectangle_run: Path, rectangles: Path, tmp_path: Path) -> None:
    page = boxwright.report(rectangle_run, rectangles, out=tmp_path / "page.html", num_images=6).path
    assert_works(page, tmp_path)


@pytest.mark.slow
def test_a_report_on_a_classifier(drawn: Path, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    assert main(["crop", "--data", str(drawn), "--out", str(crops), "--min-size", "1"]) == 0
    data = open_data(crops, "val", task="classification")
    generator = torch.Generator().manual_seed(0)
    count = len(data.categories)
    detections = {
        record.image_id: Detections(
            torch.zeros(count, 4),
            torch.rand(count, generator=generator).sort(descending=True).values,
            torch.randperm(count, generator=generator),
        )
        for record in data.records
    }
    evaluation = ClassEvaluation(data, detections, class_accuracy(data, detections))
    page = tmp_path / "page.html"
    facts = ReportFacts(summary={"model": "none"}, notes=evaluation.notes, command="boxwright report")
    images = select_worst(evaluation, 0.3, 6)
    write_evaluation(
        page, evaluation, split="val", history=[], images=images, threshold=0.3, facts=facts, title="Classes"
    )
    assert_works(page, tmp_path)


@pytest.mark.slow
def test_a_comparison(rectangle_run: Path, rectangles: Path, tmp_path: Path) -> None:
    detector = boxwright.load(rectangle_run)
    with torch.no_grad():
        for parameter in detector.head.parameters():
            parameter += 0.8 * torch.randn(parameter.shape) * parameter.abs().mean()
    page = tmp_path / "page.html"
    boxwright.compare([rectangle_run, detector], rectangles, num_samples=100, latency=False, html=page)
    assert_works(page, tmp_path)


@pytest.mark.slow
def test_an_explanation(rectangle_run: Path, rectangles: Path, tmp_path: Path) -> None:
    image = open_data(rectangles, "val").records[0].path
    page = tmp_path / "page.html"
    boxwright.explain(rectangle_run, image, num_masks=20, out=page)
    assert_works(page, tmp_path, has_tables=False)


@pytest.mark.slow
def test_an_explanation_of_a_query(rectangles: Path, tmp_path: Path, make_detector: Callable[..., Detector]) -> None:
    """Three layers and the encoder, three levels and other queries; a cell of the encoder."""
    page = tmp_path / "page.html"
    boxwright.explain(make_detector(), open_data(rectangles, "val").records[0].path, method="gradient", out=page)
    assert_works(page, tmp_path)
    (tmp_path / "own").mkdir()
    assert use_page(page, tmp_path / "own")["steps"] == 4 + 4


@pytest.mark.slow
def test_a_check(drawn: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report = boxwright.check(drawn, html=page)
    assert report.findings
    assert_works(page, tmp_path)


@pytest.mark.slow
def test_a_study(tmp_path: Path) -> None:
    (tmp_path / "layers.yaml").write_text(STUDY)
    boxwright.study(tmp_path / "layers.yaml", out=tmp_path / "out", latency=False)
    assert_works(tmp_path / "out" / "study.html", tmp_path, has_images=False)


@pytest.mark.slow
def test_a_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        demo,
        "draw_data_set",
        lambda out, train, image_size: draw_data_set(out, train=train // 150, val=4, image_size=image_size // 2),
    )
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY_RECIPE))
    result = demo.demo(tmp_path / "out", recipe=tmp_path / "tiny.yaml")
    assert_works(result.report, tmp_path)
