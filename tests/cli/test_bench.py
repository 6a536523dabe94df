"""``boxwright bench``: a table, JSON and a chart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from boxwright.cli.bench import list_points
from boxwright.cli.main import main
from boxwright.exporting.certificate import find_certificate
from boxwright.reports.latency_chart import LatencyPoint, plot_latency
from boxwright.workflows import bench as module
from boxwright.workflows.bench import BenchResult, BenchRow
from boxwright.workflows.bench_candidates import Candidate

Capture = pytest.CaptureFixture[str]


def row(source: str, *, ap: float | None = None, seconds: float = 0.01, **settings: Any) -> BenchRow:
    return BenchRow(
        candidate=Candidate(source=source, runtime="onnxruntime", **settings),
        precision="fp32",
        input="bytes 480 x 640",
        seconds=((seconds, seconds),),
        peak_bytes=3 * 2**20,
        ratio=1.0,
        ap=ap,
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Arguments of the function, which returns two rows instead of measuring."""
    calls: list[dict[str, Any]] = []

    def bench(models: Any, **options: Any) -> BenchResult:
        calls.append({"models": models, **options})
        rows = (row("folder/a.onnx", ap=0.5), row("b.onnx", batch_size=2, seconds=0.02))
        return BenchResult(rows, {"cores": 2}, ("b.onnx",))

    monkeypatch.setattr(module, "bench", bench)
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_table_with_the_settings_that_differ_in_its_rows(measured: list[dict[str, Any]], capsys: Capture) -> None:
    assert main(["bench", "a.onnx", "b.onnx", "--batch-size", "1,2", "--image-shape", "480x640, 72x96"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert measured[0]["batch_sizes"] == (1, 2)
    assert measured[0]["image_shapes"] == ((480, 640), (72, 96))
    assert lines[0] == "onnxruntime, fp32, bytes 480 x 640, 1 thread"
    assert lines[1].split() == ["median", "ms", "p95", "ms", "ratio", "images/s", "MiB", "AP"]
    assert lines[2].split() == ["folder/a.onnx,", "batch", "of", "1", "10.0", "10.0", "1.00", "100.0", "3", "0.500"]
    assert lines[3].split() == ["b.onnx,", "batch", "of", "2", "20.0", "20.0", "1.00", "100.0", "3", "–"]
    assert lines[4] == "without a certificate, and so without AP: b.onnx"


def test_json_on_standard_output_is_alone(measured: list[dict[str, Any]], capfd: Capture) -> None:
    assert main(["bench", "a.onnx", "--json", "-"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert measured
    assert [one["AP"] for one in content["rows"]] == [0.5, None]
    assert content["uncertified"] == ["b.onnx"]


def test_a_chart_of_what_has_a_certificate(measured: list[dict[str, Any]], capsys: Capture) -> None:
    Path("a.onnx").touch()
    find_certificate("a.onnx").touch()
    assert main(["bench", "a.onnx", "--plot", "chart.svg"]) == 0
    text = Path("chart.svg").read_text()
    assert len(measured) == 1
    assert "a.onnx" in capsys.readouterr().out
    assert "<svg" in text
    assert main(["bench", "b.onnx", "--plot", "chart.svg"]) == 2
    assert "none has a certificate" in capsys.readouterr().err
    assert main(["bench", "a.onnx", "--plot", "chart.jpg"]) == 2
    assert "chart.jpg: charts are written as .svg, .png, .pdf" in capsys.readouterr().err
    assert len(measured) == 1


def test_points_are_named_by_what_differs(tmp_path: Path) -> None:
    rows = (row("x/a.onnx", ap=0.5), row("x/a.onnx", ap=0.5, threads=2), row("b.onnx"))
    points = list_points(BenchResult(rows, {}, ()))
    assert points == [LatencyPoint("a.onnx, 1 thread", 10.0, 0.5), LatencyPoint("a.onnx, 2 threads", 10.0, 0.5)]
    plot_latency(points, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no point to draw"):
        plot_latency([], tmp_path / "none.svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m", "--image-shape", "480"], "'480' is no shape of images; give height x width, as 480x640"),
        (["m", "--threads", "two"], "argument --threads: invalid list value: 'two'"),
        (["m", "--input", "jpeg"], "argument --input: invalid choice: 'jpeg'"),
        (["nothing.onnx"], "there is no file nothing.onnx"),
    ],
)
def test_mistakes(arguments: list[str], message: str, refused: Any) -> None:
    assert message in refused(["bench", *arguments])
