"""The report: complete, self-contained, escaped, the same for the same input."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.data.records import Record
from boxwright.evaluation.coco_metrics import CocoMetrics
from boxwright.ops.masks import encode_mask
from boxwright.reports import page as frame
from boxwright.reports.page_images import ReportImage, encode
from boxwright.reports.report import ReportFacts, write_report
from boxwright.reports.section import Cell, Matrix, MatrixCell, PageTable, Section
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

NAMES = ("cell <b>&\"'", "$x_{1}$ _y")
NUMBERS = {
    "AP": 0.4123, "AP50": 0.7554, "AP75": 0.4, "APs": -1.0, "APm": 0.3, "APl": 0.5,
    "AR1": 0.2, "AR10": 0.4, "AR100": 0.6789, "ARs": -1.0, "ARm": 0.5, "ARl": 0.7,
}  # fmt: skip


def class_row(name: str, **changed: Any) -> dict[str, Any]:
    row = {
        "name": name,
        "category_id": 3,
        "num_objects": 1200,
        "AP": 0.25,
        "AP50": 0.5,
        "AP75": 0.3,
        "AR": 0.6,
        "APs": -1.0,
    }
    return row | {"APm": 0.1, "APl": 0.9, "precision50": tuple(np.linspace(1, 0, 101).tolist())} | changed


METRICS = NUMBERS | {"per_class": [class_row(NAMES[0]), class_row(NAMES[1], num_objects=0, AP=-1.0, precision50=())]}


def history() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, 101):
        lr = {"backbone": 1e-5, "rest": 1e-4}
        rows.append({"step": step, "loss": 20 / step, "losses": {"giou": 2 / step, "l1": 1 / step}, "lr": lr})
    rows += [{"step": 50, "AP": 0.1, "AP50": 0.2, "weights": weights} for weights in ("raw", "ema")]
    return rows


def make_image() -> ReportImage:
    record = Record(
        image_id=1,
        path=Path("folder/<i>one.png"),
        height=100,
        width=150,
        labels=np.array([0]),
        bbox_xywh=np.array([[10.0, 20.0, 50.0, 40.0]]),
        area=np.array([2000.0]),
        crowd=np.array([False]),
        annotation_ids=(1,),
    )
    boxes = torch.tensor([[10.0, 20.0, 60.0, 60.0], [1.0, 2.0, 9.0, 9.0]])
    detections = Detections(boxes, torch.tensor([0.8, 0.3]), torch.tensor([0, 1]))
    return ReportImage(np.full((100, 150, 3), 90, dtype=np.uint8), record, detections)


def write(path: Path, **changed: Any) -> str:
    categories = tuple(Category(index, name) for index, name in enumerate(NAMES))
    options: dict[str, Any] = {
        "title": "Run <1>",
        "metrics": METRICS,
        "history": history(),
        "images": [make_image()],
        "categories": categories,
        "threshold": 0.4,
        "facts": ReportFacts(
            summary={"Data": "a & b"},
            notes=["7 images < 8"],
            recipe="neck: {name: <fpn>}\ntrain: {epochs: 3}\n",
            environment={"torch": "2.15"},
            command="boxwright train x --data 'a b'",
        ),
    }
    write_report(path, **(options | changed))
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags, text, and every address that a browser would follow; fails on tags that do not close."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = write(tmp_path / "new folder" / "report.html")
    assert "http" not in html
    assert "@import" not in html
    page = Page(html)
    assert not {"link", "iframe"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert '<script>\n"use strict";' in html  # its own, from no address
    outside = [address for address in page.addresses if not address.startswith(("#", "data:image/jpeg;base64,"))]
    assert outside == []
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["report.html"]


def test_ids_are_unique_and_references_resolve(tmp_path: Path) -> None:
    html = write(tmp_path / "report.html")
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    used = {address[1:] for address in page.addresses if address.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert used
    assert used <= set(page.ids)


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    html = write(tmp_path / "report.html")
    page = Page(html)
    assert "cell <b" not in html
    text = "".join(page.text)
    for shown in (*NAMES, "Run <1>", "<i>one.png", "a & b", "7 images < 8", "neck: {name: <fpn>}"):
        assert shown in text
    assert "i" not in page.tags


def test_numbers(tmp_path: Path) -> None:
    html = write(tmp_path / "report.html")
    tiles = re.findall(r'class="name">(\w+)</span><b>([^<]+)</b>', html)
    assert tiles == [("AP", "0.412"), ("AP50", "0.755"), ("AP75", "0.400"), ("AR100", "0.679")]
    values = dict(re.findall(r'<dt>(\w+)</dt>.*?class="value">([^<]+)</dd>', html))
    assert values == {name: f"{value:.3f}" if value >= 0 else "–" for name, value in NUMBERS.items()}
    heads = re.findall(r'<th scope="col">([^<]+)</th>', html)
    assert heads == ["class", "objects", "AP", "AP50", "AP75", "AR", "APs", "APm", "APl"]
    cells = re.findall(r"<td[^>]*>([^<]+)</td>", html)
    assert cells[:8] == ["1,200", "0.250", "0.500", "0.300", "0.600", "–", "0.100", "0.900"]
    assert cells[8:] == ["0", "–", "0.500", "0.300", "0.600", "–", "0.100", "0.900"]
    assert "score of at least 0.40" in html
    assert "1 objects, 1 detections" in html


def test_recall_of_more_detections_has_its_own_name(tmp_path: Path) -> None:
    """As ``evaluate(..., max_detections=300)`` gives it, of boxes and of masks; of ten there is no third."""
    numbers = CocoMetrics(*[0.1 * i for i in range(1, 13)], max_detections=300).to_json(curves=True)
    html = write(tmp_path / "a.html", metrics=numbers | {"segm": numbers})
    assert list(numbers)[8] == "AR300"
    assert re.findall(r'class="name">(AR\w+)</span><b>([^<]+)</b>', html) == [("AR300", "0.900")] * 2
    values = re.findall(r'<dt>(AR\d+)</dt>.*?class="value">([^<]+)</dd>', html)
    assert values == [("AR1", "0.700"), ("AR10", "0.800"), ("AR300", "0.900")] * 2
    assert "recall, 300 per class" in html
    assert "AR100" not in html

    ten = CocoMetrics(*[0.1 * i for i in range(1, 13)], max_detections=10).to_json(curves=True)
    html = write(tmp_path / "b.html", metrics=ten)
    assert re.findall(r'class="name">(AR\w+)</span>', html) == ["AR10"]


def test_contents_lead_to_sections(tmp_path: Path) -> None:
    html = write(tmp_path / "report.html", causes=["61 % between <a> and b"])
    listed = re.findall(r'<li><a href="#(section-\d+)">([^<]*)</a></li>', html)
    sections = re.findall(r'<section id="(section-\d+)"[^>]*>\s*<h2>([^<]*)</h2>', html)
    assert listed == sections
    assert [name for _, name in listed][:3] == ["Where precision is lost", "Classes", "Precision over recall"]
    assert "<li>61 % between &lt;a&gt; and b</li>" in html
    few = write(tmp_path / "few.html", history=[], images=[], facts=ReportFacts(summary={}))
    assert "<nav" not in few


def test_sections_show_what_they_have(tmp_path: Path) -> None:
    rows = [[Cell("a<b", 2.0, color="rgb(1 2 3)"), Cell("many"), Cell("1,000", 1000, 0.25)], [Cell("c", 1.0)] * 3]
    tables = [PageTable(("name", "word", "number"), rows, "First"), PageTable(("x", "y", "z"), [], "Second")]
    cells = [MatrixCell("7", 0.7, True, "a as a: 7"), MatrixCell("3", 0.3, False, "a as b: 3")]
    section = Section(
        title="S",
        text="T",
        facts={"images": "87"},
        tables=tables,
        matrix=Matrix("corner", ["a", "b"], [("a", cells)]),
        charts=[("C", "<svg></svg>")],
        remarks=["R"],
    )
    html = write(tmp_path / "report.html", metrics=None, history=[], images=[], sections=[section])
    Page(html)  # everything is closed
    for part in (
        "<h2>S</h2>",
        '<p class="muted">T</p>',
        "<dt>images</dt><dd>87</dd>",
        '<th scope="row" data-value="2.0"><span class="swatch" style="background: rgb(1 2 3)"></span>a&lt;b</th>',
        '<td data-value="1000" class="bar" style="--part: 0.250">1,000</td>',
        '<td class="hit" style="--part: 0.700" title="a as a: 7">7</td>',
        '<td class="error" style="--part: 0.300" title="a as b: 3">3</td>',
        "<figcaption>C</figcaption><svg></svg>",
        "<p>R</p>",
    ):
        assert part in html, part
    assert re.findall(r"<details( open)?>\s*<summary>(\w+)</summary>", html) == [(" open", "First"), ("", "Second")]


def test_columns_of_words_are_those_without_numbers() -> None:
    rows = [[Cell("a"), Cell("text"), Cell("1", 1.0), Cell("–")], [Cell("b"), Cell(""), Cell("–"), Cell("–")]]
    assert PageTable(("n", "w", "x", "nothing"), rows).columns_of_words() == {1}


def test_images_of_a_page_fit_together(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    one = make_image()
    record = replace(one.record, width=640, height=640)
    images = [one._replace(image=noise, record=record, form="overlay")] * 12
    html = write(tmp_path / "report.html", images=images, history=[])
    assert html.count("<img src=") == 12
    assert 1_000_000 < len(html) < 5_000_000
    assert len(encode(Image.fromarray(noise), 20_000)) <= 20_000


def test_images_show_ground_truth_and_detections(tmp_path: Path) -> None:
    html = write(tmp_path / "report.html")
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    ground_truth, detections = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))).astype(int) for one in encoded
    )
    # 150 pixels fit four times into the report's side, so the left edge (10, 20..60) lies at 40, 80..240.
    assert ground_truth.shape == detections.shape == (400, 600, 3)
    blue = np.abs(np.stack([ground_truth, detections])[:, 80:240, 40] - (0, 119, 187)).max(-1) < 40
    assert 0.3 < blue[0].mean() < 0.7
    assert blue[1].mean() > 0.95


def test_charts_show_what_the_history_has(tmp_path: Path) -> None:
    html = write(tmp_path / "report.html")
    assert html.count("<svg") == 5
    text = " ".join("".join(Page(html).text).split())
    for label in ("as it was", "smoothed", "giou", "l1", "backbone", "rest", "AP raw", "AP50 ema"):
        assert label in text
    assert "#010101" not in html
    assert "#020202" not in html


@pytest.mark.parametrize(
    ("rows", "num_charts"),
    [
        ([], 1),
        ([{"epoch": 1}, {"step": None, "loss": 3.0}, {"step": 4, "loss": None}], 1),
        ([{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf")}], 1),
        ([{"step": 1, "loss": 3.0}], 2),
        ([{"step": 1, "lr": 0.1}, {"step": 9, "AP": 0.5}], 3),
        ([{"step": step, "loss": 1.0, "losses": None, "lr": 0.0} for step in range(5000)], 3),
    ],
)
def test_histories_with_gaps(tmp_path: Path, rows: list[dict[str, Any]], num_charts: int) -> None:
    html = write(tmp_path / "report.html", history=rows, images=[])
    assert html.count("<svg") == num_charts
    assert len(html) < 120_000


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    undefined = dict.fromkeys(NUMBERS, -1.0) | {"per_class": []}
    html = write(
        tmp_path / "report.html",
        metrics=undefined,
        history=[],
        images=[],
        facts=ReportFacts(summary={}),
    )
    headings = re.findall(r"<h2>([^<]+)</h2>", html)
    assert headings == ["Classes"]
    assert html.count("<b>–</b>") == 4


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.html") == write(tmp_path / "b.html")


def test_an_older_report_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write(path).startswith("<!doctype html>")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == "matplotlib" else util.find_spec(name)

    monkeypatch.setattr(frame, "find_spec", find)
    with pytest.raises(ValueError, match=r"report: matplotlib; install with: pip install 'boxwright\[report\]'"):
        write(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_masks_have_numbers_curves_and_pixels_of_their_own(tmp_path: Path) -> None:
    masks = {**METRICS, "AP": 0.3331, "per_class": [class_row(NAMES[0], AP=0.222), class_row(NAMES[1], AP=-1.0)]}
    rows = [*history(), {"step": 60, "AP": 0.4, "AP50": 0.5, "segm": {"AP": 0.3, "AP50": 0.45}}]
    one = make_image()
    mask = torch.ones(100, 150, dtype=torch.bool)
    record = replace(one.record, segmentations=([[10.0, 20, 60, 20, 60, 60]],))
    images = [one._replace(record=record, detections=replace(one.detections, masks=(encode_mask(mask),) * 2))]
    html = write(tmp_path / "a.html", metrics=METRICS | {"segm": masks}, history=rows, images=images)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    tiles = re.findall(r'class="name">(\w+)</span><b>([^<]+)</b>', html)
    assert [value for name, value in tiles if name == "AP"] == ["0.412", "0.333"]
    text = "".join(page.text)
    for heading in ("Boxes", "Masks", "Classes: boxes", "Classes: masks", "Precision over recall: masks"):
        assert heading in text
    for line in ("mask AP", "mask AP50"):
        assert line in text
    assert text.count("7 images < 8") == 1
    assert "mask AP" not in "".join(Page(write(tmp_path / "b.html")).text)

    def drawn(name: str) -> list[np.ndarray]:
        uris = re.findall(r"data:image/jpeg;base64,([^\"]+)", (tmp_path / name).read_text())
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))).astype(int) for uri in uris]

    for with_masks, without in zip(drawn("a.html"), drawn("b.html"), strict=True):
        assert np.abs(with_masks - without).mean() > 1
