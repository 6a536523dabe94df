"""Numbers of docs/speed.md: those of the files that benchmarks write on each machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pages import ROOT, load_generator

tables = load_generator()

ROW = {
    "what": "a step",
    "peer": "other",
    "precision": "float32",
    "ours": 123.4,
    "theirs": 246.8,
    "ratio": 2.0,
    "low": 1.5,
    "high": 2.5,
    "rounds": 3,
    "unit": "ms",
}


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The frame of the benchmarks, which import each other by their names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("comparisons")


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of everything that benchmarks have in common."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("side_by_side")


def describe_machine(name: str = "Some processor, AVX2, 2 cores") -> dict[str, Any]:
    return {"name": name, "processor": "Some processor", "instructions": ["AVX2"], "cores": "2 cores", "gpu": None}


def check_file(path: Path, module: ModuleType) -> None:
    """A file has its machine's name, and rows that are complete and of different comparisons."""
    content = json.loads(path.read_text())
    assert content.keys() == {"machine", "runs"}
    assert content["machine"].keys() == describe_machine().keys()
    assert path.name == module.file_name(content["machine"])
    rows = [row for run in content["runs"] for row in run["rows"]]
    assert rows
    assert len({(row["what"], row["peer"], row["precision"]) for row in rows}) == len(rows)
    for run in content["runs"]:
        assert run.keys() == {"threads", "versions", "rows"}
        assert {"boxwright", "python", "torch"} <= run["versions"].keys()
    for row in rows:
        assert row.keys() == ROW.keys()
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["unit"] in ("ms", "MiB")
        assert row["rounds"] >= 1


def test_files_are_complete(comparisons: ModuleType) -> None:
    paths = list((ROOT / "docs" / "speed").glob("*.json"))
    assert paths
    for path in paths:
        check_file(path, comparisons)


def test_the_tables_are_made_of_the_files() -> None:
    assert tables.read_table("speed") == tables.speed(), tables.COMMAND


def test_machines_stand_beside_each_other(
    tmp_path: Path, comparisons: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "docs" / "speed"
    comparisons.store(folder, describe_machine("One"), 2, [ROW, {**ROW, "precision": "bfloat16"}])
    comparisons.store(folder, describe_machine("Two"), 4, [{**ROW, "ratio": 3.0, "ours": 1.25}])
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    lines = tables.speed().splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [["| One", "2"], ["| Two", "4"]]
    assert lines[-4:] == [
        "| work | against | precision | One | Two |",
        "|---|---|---|---|---|",
        "| a step | other | float32 | **2.00 ×** (1.50 to 2.50), 123 ms | **3.00 ×** (1.50 to 2.50), 1.2 ms |",
        "| a step | other | bfloat16 | **2.00 ×** (1.50 to 2.50), 123 ms |  |",
    ]


def test_what_is_measured_again_is_replaced_and_all_else_stays(
    tmp_path: Path, comparisons: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**ROW, "what": "another step"}
    comparisons.store(tmp_path, describe_machine(), 2, [ROW, other])
    comparisons.store(tmp_path, describe_machine(), 2, [{**ROW, "ours": 100.0}])
    (path,) = tmp_path.iterdir()
    (run,) = json.loads(path.read_text())["runs"]
    assert run["rows"] == [other, {**ROW, "ours": 100.0}]
    # With other versions, the rows are another run's.
    monkeypatch.setattr(comparisons, "list_versions", lambda: {"boxwright": "9", "python": "4", "torch": "3"})
    comparisons.store(tmp_path, describe_machine(), 2, [other])
    first, second = json.loads(path.read_text())["runs"]
    assert (first["rows"], second["rows"]) == ([{**ROW, "ours": 100.0}], [other])
    check_file(path, comparisons)


def test_ratios_are_of_rounds(side_by_side: ModuleType) -> None:
    row = side_by_side.make_row("work", "peer", [(1.0, 1.0), (1.0, 2.0), (2.0, 6.0)], "float32")
    assert (row.ours, row.theirs, row.ratio, row.low, row.high, row.rounds) == (1000, 2000, 2, 1.5, 2.5, 3)
    single = side_by_side.make_row("work", "peer", [(2.0, 3.0)], "float32", "MiB")
    assert (single.ours, single.ratio, single.low, single.high) == (2, 1.5, 1.5, 1.5)


def test_actions_take_turns(side_by_side: ModuleType) -> None:
    order: list[str] = []
    measured = side_by_side.turns(lambda: order.append("a"), lambda: order.append("b"), rounds=2)
    assert order == ["a", "b"] * 4
    assert [len(one) for one in measured] == [2, 2]


def test_every_benchmark_has_what_the_frame_calls(comparisons: ModuleType) -> None:
    for name in comparisons.BENCHMARKS:
        source = (ROOT / "benchmarks" / f"{name}.py").read_text()
        for needed in ("def make_parser(", "def measure(", "\nCASES = (", "\nQUICK = ("):
            assert needed in source, f"{name}: {needed}"


def test_a_benchmark_that_fails_does_not_stop_the_others(
    tmp_path: Path, comparisons: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_benchmark(module: ModuleType, *_: object) -> tuple[list[dict[str, Any]], int]:
        if module.__name__ == "roi_align":
            raise RuntimeError("not\nhere")
        return [ROW], 2

    monkeypatch.setattr(comparisons, "run_benchmark", run_benchmark)
    arguments = ["--only", "roi_align", "deformable_sampling", "--out", str(tmp_path)]
    assert comparisons.main(arguments) == 1
    assert "roi_align failed: RuntimeError: not here" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    check_file(path, comparisons)


def test_cases_may_be_given(tmp_path: Path, comparisons: ModuleType) -> None:
    sizes = ["--size", "64", "64", "--batch", "1", "--regions", "3"]
    given = ["--only", "roi_align", "--rounds", "1", "--threads", "1", "--out", str(tmp_path), "--", *sizes]
    assert comparisons.main(given) == 0
    (path,) = tmp_path.iterdir()
    check_file(path, comparisons)
    (run,) = json.loads(path.read_text())["runs"]
    assert [row["what"] for row in run["rows"]] == [
        f"RoIAlign of 3 regions on four levels of 1 images, 64 x 64 px, {way}"
        for way in ("forward", "forward and backward")
    ]


def test_all_benchmarks_find_what_they_import() -> None:
    """As a user starts them, without the folders that pytest adds."""
    folder = ROOT / "benchmarks"
    code = """
import importlib, comparisons
for name in comparisons.BENCHMARKS:
    importlib.import_module(name)
comparisons.page_writer()
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_all_benchmarks_run(tmp_path: Path, comparisons: ModuleType) -> None:
    assert comparisons.main(["--quick", "--threads", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    check_file(path, comparisons)
