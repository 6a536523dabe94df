"""``boxwright.bench``: settings in every combination, processes that are timed in turn, and their failures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import boxwright
from boxwright.detector import Detector
from boxwright.exporting.certificate import find_certificate, hash_exported
from boxwright.workflows import bench as module
from boxwright.workflows.bench_candidates import BenchGrid, Candidate, list_candidates
from boxwright.workflows.bench_process import BenchProcess, Readiness, run_candidate, start_process
from boxwright.workflows.machine import describe_machine
from boxwright.workflows.memory_limits import FreeMemory
from stand_in_export import write_stand_in
from tiny_recipe import TINY_RECIPE

KINDS = ("onnx", "xml")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    boxwright.build(TINY_RECIPE, num_classes=3).save(path)
    return path


def answers(candidate: Candidate, *repeats: int) -> list[dict[str, Any]]:
    """Run a candidate in this process."""
    collected: list[dict[str, Any]] = []
    run_candidate([candidate.write(), *map(str, repeats)], collected.append)
    return collected


SECONDS = {1: (1.0, 4.0, 2.0), 3: (3.0, 20.0, 4.0)}


class Pretended(BenchProcess):
    """A process whose rounds take as many seconds as ``SECONDS`` says of its batch size."""

    order: list[int] = []  # noqa: RUF012 (cleared by each test)

    def __init__(self, candidate: Candidate) -> None:
        self.candidate, self.rounds = candidate, 0

    def prepare(self) -> Readiness:
        return Readiness(float(self.candidate.batch_size), 2**20, self.candidate.precision or "", "bytes")

    def run_round(self, repeats: int) -> list[float]:
        self.order.append(self.candidate.batch_size)
        self.rounds += 1
        return [SECONDS[self.candidate.batch_size][self.rounds - 1]] * repeats


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes in the order in which they ran."""

    @contextmanager
    def start(candidate: Candidate) -> Iterator[BenchProcess]:
        yield Pretended(candidate)

    monkeypatch.setattr(module, "start_process", start)
    Pretended.order = []
    return Pretended.order


def test_every_combination_of_a_model() -> None:
    grid = BenchGrid(
        batch_sizes=(1, 2), threads=(1, 3), precisions=("fp32", "bf16"), image_sizes=(64, 96), image_shapes=((5, 6),)
    )
    listed = list_candidates([("run", None)], grid)
    assert len(set(listed)) == len(listed) == 2**5
    assert {one.runtime for one in listed} == {"eager", "folded"}
    assert {(one.image_size, one.image_shape) for one in listed} == {(64, (5, 6)), (96, (5, 6))}


def test_a_file_has_a_precision_and_an_image_size_of_its_own(tmp_path: Path) -> None:
    grid = BenchGrid(precisions=("fp32", "bf16"), image_sizes=(64, 96))
    sources: list[tuple[str, str | None]] = [(str(write_stand_in(tmp_path / f"x.{kind}")), None) for kind in KINDS]
    listed = list_candidates(sources, grid)
    assert [(one.runtime, one.precision, one.image_size) for one in listed] == [
        ("onnxruntime", None, None),
        ("openvino", None, None),
    ]
    with pytest.raises(ValueError, match=r"x\.onnx is an exported file for onnxruntime, not folded or openvino"):
        list_candidates(sources, replace(grid, runtimes=("folded", "openvino")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("profile", "described"), [("bytes", "bytes 50 x 70"), ("float", "network input 32 x 44")])
def test_a_file_runs(kind: str, profile: str, described: str, tmp_path: Path) -> None:
    file = write_stand_in(tmp_path / f"x.{kind}", profile=profile, precision="int8")
    (candidate,) = list_candidates([(str(file), None)], BenchGrid(batch_sizes=(2,), image_shapes=((50, 70),)))
    ready, *rounds = answers(candidate, 2)
    assert (ready["precision"], ready["input"]) == ("int8", described)
    assert [len(one["seconds"]) for one in rounds] == [2]


def test_rounds_go_over_all_in_turn_and_ratios_are_of_each_round(model: Path, pretended: list[int]) -> None:
    result = boxwright.bench(model, batch_sizes=(1, 3), runtimes=("eager",), rounds=3, threads=(1,))
    assert pretended == [1, 3] * 3
    first, second = result.rows
    assert (first.seconds, second.seconds) == (((1.0,), (4.0,), (2.0,)), ((3.0,), (20.0,), (4.0,)))
    assert (second.median, second.p95) == (4.0, pytest.approx(18.4))
    assert second.throughput == 3 * 3 / 27
    assert (first.ratio, second.ratio) == (1.0, 3.0)  # of 3, 5 and 2
    assert json.loads(json.dumps(result.to_json()))["rows"][1]["images_per_second"] == second.throughput


def test_fast_candidates_run_often_in_a_round(
    model: Path, pretended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not pretended
    monkeypatch.setattr(Pretended, "prepare", lambda _: Readiness(0.1, None, "fp32", "bytes"))
    (row,) = boxwright.bench(model, runtimes=("eager",), rounds=1, threads=(1,)).rows
    assert len(row.seconds[0]) == 5
    monkeypatch.setattr(Pretended, "prepare", lambda _: Readiness(0.0, None, "fp32", "bytes"))
    (row,) = boxwright.bench(model, runtimes=("eager",), rounds=1, threads=(1,)).rows
    assert len(row.seconds[0]) == 100
    assert row.peak_bytes is None


def test_ap_is_that_of_the_certificate(tmp_path: Path, pretended: list[int]) -> None:
    file, _ = (write_stand_in(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    find_certificate(file).write_text(json.dumps({"sha256": hash_exported(file), "file": {"AP": 0.25}}))
    result = boxwright.bench([file, tmp_path / "b.onnx"], rounds=1, threads=(1,))
    assert pretended
    assert [row.ap for row in result.rows] == [0.25, None]
    assert result.uncertified == (str(tmp_path / "b.onnx"),)
    write_stand_in(file, version="0.4.0")  # the certificate is of the file before
    assert boxwright.bench(file, rounds=1, threads=(1,)).rows[0].ap is None
    find_certificate(file).write_text("{}")
    with pytest.raises(ValueError, match=r"a\.onnx\.certificate\.json is no certificate"):
        boxwright.bench(file, rounds=1, threads=(1,))


def test_candidates_that_fill_the_memory(model: Path, pretended: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: FreeMemory(2**20, "machine"))
    with pytest.raises(ValueError, match="1 of 2 candidates fill the memory"):
        boxwright.bench(model, rounds=1)
    assert not pretended


@pytest.mark.parametrize(("runtime", "precision"), [("eager", "fp32"), ("folded", "bf16")])
@pytest.mark.parametrize(("fed", "described"), [("bytes", "bytes 50 x 70"), ("float", "network input 96 x 96")])
def test_a_model_runs(model: Path, runtime: str, precision: str, fed: Any, described: str) -> None:
    candidate = Candidate(
        source=str(model),
        runtime=runtime,
        precision=precision,
        batch_size=2,
        image_size=96,
        image_shape=(50, 70),
        input=fed,
    )
    ready, *rounds = answers(candidate, 1, 3)
    assert (ready["precision"], ready["input"]) == (precision, described)
    assert ready["seconds"] > 0
    assert [len(one["seconds"]) for one in rounds] == [1, 3]


def test_inputs_that_are_padded_run(tmp_path: Path) -> None:
    recipe = {**TINY_RECIPE, "input": {"image_size": 64, "resize": "shortest_side", "pad_multiple": 32}}
    boxwright.build(recipe, num_classes=3).save(path := tmp_path / "padded.safetensors")
    for fed in ("bytes", "float"):
        (ready,) = answers(
            Candidate(source=str(path), runtime="folded", precision="fp32", image_shape=(48, 60), input=fed)
        )
        assert ready["seconds"] > 0, ready


def test_a_failure_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("nothing")
    (answer,) = answers(Candidate(source=str(tmp_path / "x.safetensors"), runtime="eager", precision="fp32"))
    assert answer.keys() == {"error"}
    assert "\n" not in answer["error"]


def test_a_process_of_its_own_is_timed_and_says_its_memory(model: Path) -> None:
    """One that is ended from outside says so, and one with a threads option computes with so many."""
    candidate = Candidate(source=str(model), runtime="folded", precision="fp32", image_shape=(40, 50))
    with start_process(candidate) as process:
        ready = process.prepare()
        assert len(process.run_round(2)) == 2
        if sys.platform == "linux":
            assert ready.peak is not None
            assert 100 * 2**20 < ready.peak < 4 * 2**30
        process._process.kill()
        with pytest.raises(
            ValueError, match="folded, fp32, batch of 1, 1 thread, 40 x 50: the system ended its process"
        ):
            process.run_round(1)


def test_the_process_of_a_file_is_without_torch() -> None:
    """So the memory of a file is that of its runtime."""
    code = "import sys, boxwright.workflows.bench_process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_process_that_breaks_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with start_process(Candidate(source="x", runtime="eager")) as process, pytest.raises(ValueError, match="code 1"):
        process.prepare()


def test_detectors_are_measured_as_they_are(
    make_detector: Any, pretended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = boxwright.build(TINY_RECIPE, num_classes=3)
    seen: list[Detector] = []
    monkeypatch.setattr(
        Pretended,
        "prepare",
        lambda self: seen.append(boxwright.load(self.candidate.source)) or Readiness(1.0, 1, "", ""),
    )
    result = boxwright.bench([detector], runtimes=("eager",), rounds=1, threads=(1,))
    assert pretended
    assert [row.candidate.title for row in result.rows] == ["detector 1"]
    assert set(seen[0].state_dict()) == set(detector.state_dict())
    with pytest.raises(ValueError, match="has no recipe"):
        boxwright.bench(make_detector())


def test_the_machine() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 0.1
    assert machine["versions"]["boxwright"] == boxwright.__version__
    assert machine["versions"]["torch"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "rounds is at least 1, not 0"),
        ({"batch_sizes": (1, 0)}, "batch_sizes are at least 1, not 1, 0"),
        ({"batch_sizes": ()}, "batch_sizes needs at least one value"),
        ({"precisions": ("half",)}, "precisions are of fp32, bf16, fp16, not half"),
        ({"runtimes": ("tensorrt",)}, "runtimes are of eager, folded, onnxruntime, openvino, not tensorrt"),
        ({"input": "jpeg"}, "input are of bytes, float, not jpeg"),
        ({"image_shapes": ((0, 4),)}, r"at least 1 x 1"),
        ({"runtimes": ("openvino",)}, "is a model, which is eager or folded, not openvino"),
        ({"device": "tpu"}, "device is auto, cpu or cuda, not 'tpu'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_mistakes(model: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boxwright.bench(model, **arguments)


def test_no_model_or_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to measure"):
        boxwright.bench([])
    with pytest.raises(FileNotFoundError, match="there is no file"):
        boxwright.bench(tmp_path / "nothing.onnx")
