"""The conformance page: what is stored, every system and every cell of it; each number has a test that asserts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import ROOT, load_generator

from conformance import STORED, read_cases
from originals import AUTHORS, ORIGINALS, PEERS

tables = load_generator()

import conformance_tables  # noqa: E402  the generator puts its folder on the path

SYSTEMS = yaml.safe_load((ROOT / "docs" / "systems.yaml").read_text())
ROWS = [row for of_subject in SYSTEMS["subjects"].values() for row in of_subject]
CASES = read_cases()
NUMBER = r"(?:0|equal|\d(?:\.\d)?e-\d+|\d\.\de\+\d+|0\.\d+|\d\.\d)"


def cells_of(table: str) -> list[list[str]]:
    """List the cells of a table, without its header."""
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


@pytest.mark.parametrize("name", ["conformance", "measurements", "parity"])
def test_tables_are_what_is_stored(name: str) -> None:
    page = tables.TABLES[name][0]
    assert tables.read_table(name) == tables.TABLES[name][1](), f"{page} is not what is stored: {tables.COMMAND}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['system']}: {row['recipes'][0]}")
def test_every_system_is_there_against_every_kind_of_project(row: dict[str, Any]) -> None:
    lines = [
        cells for cells in cells_of(tables.conformance_of_systems()) if cells[0].endswith(f": `{row['recipes'][0]}`")
    ]
    assert set(PEERS) <= {peer for cells in lines for peer in cells[1].split(", ")}
    assert all(len(cells) == 2 + len(conformance_tables.KINDS) for cells in lines)
    assert any(re.match(NUMBER, cell) for cells in lines for cell in cells[2:]), "nothing of it was measured"


def test_a_cell_is_a_number_or_says_that_it_was_not_measured() -> None:
    for cells in cells_of(tables.conformance_of_systems()) + cells_of(tables.conformance_of_parts()):
        for cell in cells[2:]:
            parts = [] if cell == conformance_tables.NOT_MEASURED else cell.split(", ")
            assert all(re.fullmatch(rf"{NUMBER}(?: px| of them)?(?: \(float32\))?", part) for part in parts), cell
            assert cell


def test_every_part_is_of_a_system_or_named_as_one_of_none() -> None:
    of_systems = {part for row in ROWS for part in row["proven"]}
    measured = {row.part for row in conformance_tables.read_rows()}
    assert measured - of_systems == {
        "Non-Local block",
        "distillation of RT-DETRv4",
        "plain ViT",
        "preprocessing",
        "timm's models",
    }
    assert set(SYSTEMS["files"]) <= measured


@pytest.mark.parametrize("test", sorted({case["test"].partition("[")[0] for case in CASES}))
def test_tests_that_measured_are_there_and_marked(test: str) -> None:
    file, *_, name = test.split("::")
    text = (ROOT / file).read_text()
    assert re.search(rf"def {name}\(", text), f"{test} is not there any more: make conformance"
    assert "mark.conforms(" in text


def test_files_that_are_marked_have_measured() -> None:
    """A new comparison is recorded, or the page says nothing of it."""
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.conforms(" in path.read_text() and path.parent.name != "docs" and path.name != "test_conformance.py"
    }
    recorded = {case["test"].partition("::")[0] for case in CASES}
    assert marked == recorded, f"make conformance TEST={' '.join(sorted(marked - recorded))}"


def test_stored_numbers_are_of_the_commits_that_are_named() -> None:
    titles = {one.title: one.peer for one in ORIGINALS.values()}
    for case in CASES:
        assert case["inputs"] or "losses" in case["test"] or "weights_of" in case["test"], case["test"]
        if case["peer"] in (AUTHORS, "mmdetection") or case["stored"]:
            assert case["project"] in titles, case["test"]
    readme = (ROOT / "tests" / "parity" / "README.md").read_text()
    assert all(one.commit in readme for one in ORIGINALS.values())


def test_the_store_is_small_and_has_a_line_for_each_case() -> None:
    assert STORED.stat().st_size < 300_000
    assert len(STORED.read_text().splitlines()) == len(CASES) + 2
    assert not any(is_no_difference(row[-1]) for case in CASES for row in case["differences"])


def is_no_difference(value: float) -> bool:
    """Tell a difference that no assertion can have let through."""
    return not 0 <= value < 1


def test_numbers_and_units() -> None:
    write = conformance_tables.format_number
    assert [write(0, "absolute"), write(1.26e-7, "relative"), write(3e-10, "pixels")] == ["0", "1.3e-7", "3e-10 px"]
    assert [write(0, "different"), write(1e-5, "different")] == ["equal", "1e-05 of them"]


def test_float64_counts_before_float32() -> None:
    shared = ("part", "peer", "project 1.0", False, "tests/test_any.py::test_any", (), "")
    rows = [
        conformance_tables.Row(*shared, "outputs", "logits", precision, "absolute", value)
        for precision, value in (("float64", 1e-9), ("float32", 1e-5), ("float64 beside float32", 2e-8))
    ]
    assert conformance_tables.largest(rows) == "2e-8"
    assert conformance_tables.largest(rows[1:2]) == "1e-5 (float32)"
    assert conformance_tables.largest(rows, names=True) == "logits 2e-8"
    cells = conformance_tables.kind_cells(rows)
    assert cells == ["2e-8", *["not measured"] * 5]


def test_commands_that_repeat_rows() -> None:
    assert conformance_tables.command_of("tests/parity/test_any.py::test_any") == (
        "`make conformance TEST=tests/parity/test_any.py::test_any`"
    )
    assert conformance_tables.command_of("tests/weights/test_any.py::test_any").startswith("`BOXWRIGHT_RECORD=")
    assert "conformance:" in Path(ROOT / "Makefile").read_text()
