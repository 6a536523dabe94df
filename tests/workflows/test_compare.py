"""Models, exported files and results files compared on the same images: from Python, the command, and its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import boxwright
from boxwright.cli.main import main
from boxwright.evaluation.comparison import compare_evaluations
from boxwright.evaluation.evaluate import Evaluation
from boxwright.workflows import compare as workflow
from boxwright.workflows.bench import BenchResult, BenchRow
from boxwright.workflows.bench_candidates import Candidate
from boxwright.workflows.info import DetectorCost
from boxwright.workflows.reading import DataFiles

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory, rectangle_run: Path) -> Path:
    """The same detector with noise in the weights of its head."""
    detector = boxwright.load(rectangle_run)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in detector.head.parameters():
            parameter += 0.8 * torch.randn(parameter.shape, generator=generator) * parameter.abs().mean()
    path = tmp_path_factory.mktemp("worse") / "worse.safetensors"
    detector.save(path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, rectangle_run: Path, rectangles: Path) -> Path:
    """The detections of the run."""
    path = tmp_path_factory.mktemp("saved") / "detections.json"
    boxwright.evaluate(rectangle_run, rectangles, save_detections=path)
    return path


def evaluate(model: Path, data: Path) -> Evaluation:
    evaluation = boxwright.evaluate(model, data)
    assert isinstance(evaluation, Evaluation)
    return evaluation


def test_the_numbers_are_those_of_evaluate(rectangle_run: Path, worse: Path, rectangles: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = boxwright.compare([rectangle_run, worse], rectangles, num_samples=100, seed=3, latency=False, html=page)
    first, second = (evaluate(one, rectangles) for one in (rectangle_run, worse))
    assert [one.evaluation.boxes for one in result.models] == [first.boxes, second.boxes]
    (expected,) = compare_evaluations(first, [second], num_samples=100, seed=3)
    assert [one.to_json() for one in result.boxes] == [expected.to_json()]
    assert result.boxes[0].numbers[0].value != 0
    cost = boxwright.info(str(rectangle_run))
    assert isinstance(cost, DetectorCost)
    assert (result.models[0].params, result.models[0].gmac) == (cost.params, cost.deployed_gmac)
    assert result.models[0].latency_ms is None
    text = page.read_text()
    assert f"{worse} against {rectangle_run}" in text
    differing = min(len(result.boxes[0].objects.images), 8)
    assert differing > 0
    assert text.count("<img ") == 2 * differing
    assert "<script src" not in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_results_files_alone_show_the_images_that_there_are(
    worse: Path, saved: Path, rectangles: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    boxwright.evaluate(worse, rectangles, save_detections=other)
    alone = shutil.copytree(rectangles / "annotations", tmp_path / "annotations_alone")
    pages = []
    for number, data in enumerate((rectangles, DataFiles(annotations={"val": alone / "val.json"}))):
        page = tmp_path / f"{number}.html"
        boxwright.compare([saved, other], data, num_samples=100, latency=False, html=page)
        pages.append(page.read_text(encoding="utf-8"))
    assert pages[0].count("<img ") > 0
    assert pages[1].count("<img ") == 0


def test_a_file_of_results_is_compared_with_a_model(rectangle_run: Path, saved: Path, rectangles: Path) -> None:
    result = boxwright.compare([saved, rectangle_run, saved], rectangles, num_samples=100, latency=False)
    assert [one.name for one in result.models] == [f"{saved} (1)", str(rectangle_run), f"{saved} (3)"]
    assert result.models[0].params is None
    for comparison in result.boxes:
        assert comparison.numbers[0].value == pytest.approx(0, abs=1e-6)
        assert (comparison.objects.only_first, comparison.objects.only_second) == (0, 0)


def test_classes_in_another_order_have_the_labels_of_the_first(rectangle_run: Path, rectangles: Path) -> None:
    """So that drawings, which have the names of the first, show the classes of the others."""
    detector = boxwright.load(rectangle_run)
    detector.categories = detector.categories[::-1]
    alone = boxwright.evaluate(detector, rectangles)
    result = boxwright.compare([rectangle_run, detector], rectangles, num_samples=100, latency=False)
    first, second = (one.evaluation for one in result.models)
    assert second.data.categories == first.data.categories != alone.data.categories
    assert any(len(one) for one in alone.detections.values())
    for image_id, one in alone.detections.items():
        aligned = second.detections[image_id]
        names = [
            [categories[label].name for label in own.labels]
            for own, categories in ((one, alone.data.categories), (aligned, first.data.categories))
        ]
        assert names[0] == names[1]
        assert names[0] == [detection.name for detection in aligned]
        assert torch.equal(one.scores, aligned.scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_samples": 99}, "need 100 samples or more, not 99"), ({"seed": -1}, "seed is at least 0, not -1")],
)
def test_samples_that_cannot_be_drawn_are_refused_before_anything_is_opened(
    options: dict[str, int], message: str, rectangles: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        boxwright.compare([tmp_path / "none", tmp_path / "no other"], rectangles, **options)


def test_latencies_are_those_of_the_benchmark(
    rectangle_run: Path, saved: Path, rectangles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results have none, nor has a detector by hand, without a recipe to give to a process."""
    named: list[object] = []

    def bench(models: list[object], **options: object) -> BenchResult:
        named.extend(models)
        assert options["runtimes"] == ("folded", "onnxruntime", "openvino")
        times = {"precision": "fp32", "input": "", "peak_bytes": None, "ratio": 1.0}
        rows = [
            BenchRow(candidate=Candidate(source=str(i), runtime="folded"), seconds=((0.25 * i,),), **times)  # type: ignore[arg-type]
            for i in range(1, len(models) + 1)
        ]
        return BenchResult(tuple(rows), {}, ())

    monkeypatch.setattr(workflow, "bench", bench)
    detector = boxwright.load(rectangle_run)
    detector.recipe = None
    result = boxwright.compare([saved, rectangle_run, detector, rectangle_run], rectangles, num_samples=100)
    assert named == [rectangle_run, rectangle_run]
    assert [one.latency_ms for one in result.models] == [None, 250.0, None, 500.0]
    assert result.models[2].name == "detector 3"
    assert result.models[2].params is None


def test_the_command(saved: Path, worse: Path, rectangles: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "compared.json"
    arguments = ["compare", str(saved), str(worse), "--data", str(rectangles), "--json", str(out), "--samples", "100"]
    assert main([*arguments, "--no-latency", "--html", str(tmp_path / "page.html")]) == 0
    content = json.loads(out.read_text())
    assert [one["name"] for one in content["models"]] == [str(saved), str(worse)]
    printed = " ".join(capsys.readouterr().out.split())
    (comparison,) = content["boxes"]
    for one in (*comparison["numbers"], *comparison["per_class"]):
        if one["difference"] is not None and one["lower"] is not None:
            assert f"{one['difference']:+.3f}" in printed
            assert f"{one['lower']:+.3f} to {one['upper']:+.3f}" in printed
    objects = comparison["objects"]
    assert f"{objects['both']:,} both detect, {objects['only_first']:,} the first alone" in printed
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["{saved}"], "two or more are compared, and one is given"),
        (["{saved}", "none.json"], "none.json: no such results file"),
        (["{saved}", "none.JSON"], "none.JSON: no such results file"),
        (["{saved}", "none"], "none: no such file or folder; a model is the folder of a run"),
        (["{saved}", "{annotations}"], "is not in COCO's results form"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    models: list[str], message: str, saved: Path, rectangles: Path, tmp_path: Path, capsys: Capture
) -> None:
    annotations = rectangles / "annotations" / "val.json"
    named = [one.format(saved=saved, annotations=annotations) for one in models]
    page = tmp_path / "page.html"
    assert main(["compare", *named, "--data", str(rectangles), "--html", str(page)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("boxwright: error: ")
    assert message in line
    assert not page.exists()
