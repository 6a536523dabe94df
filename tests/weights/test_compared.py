"""The record of comparisons: every kind of file is in it, as the rows say, and recording keeps other rows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from boxwright.weights.recognize import find_kind, list_kinds
from boxwright_runtime.input_format import InputFormat
from weights.compared import STORED, VARIABLE, Comparison, Recorder, read_comparisons
from weights.source_checks import Differences

ROOT = STORED.parents[1]
ROWS = read_comparisons()
TEST = "tests/weights/test_any.py::test_any[variant]"


@pytest.mark.parametrize("kind", list_kinds())
def test_every_source_was_compared(kind: str) -> None:
    """A new source needs a test that compares it and calls ``record_comparison``."""
    rows = [row for row in ROWS if row.source == kind]
    assert rows, (
        f"docs/compared.json has no row of {kind}: let its test call record_comparison, and run it with "
        f"{VARIABLE}=docs/compared.json; then `make tables`"
    )
    compared = {name for row in rows for name in row.differences}
    needed = {"scores", "boxes"} if hasattr(find_kind(kind), "describe") else {"levels", "probabilities"}
    assert compared & needed, f"no row of {kind} has {' or '.join(sorted(needed))}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row.key))
def test_rows_keep_what_the_page_says(row: Comparison) -> None:
    assert row.source in list_kinds()
    path, _, name = row.test.partition("::")
    functions = [node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(node, "name")]
    assert name in functions, f"{row.test} is not there any more"
    assert not any(height % 128 == 0 and width % 128 == 0 for height, width in row.images)
    if "boxes" in row.differences:
        tolerances = (1e-3, 0.1) if row.source.startswith("mmdet_") else (1e-4, 0.01)
        assert row.differences["scores"] <= tolerances[0]
        assert row.differences["boxes"] <= tolerances[1]
        assert len(row.images) >= 3
        assert row.limited or " to " not in row.input


def record(variant: str, differences: Differences, **inputs: InputFormat) -> None:
    Recorder(TEST)("detr", variant, "a project 1.0", differences, **inputs)


def test_a_row_replaces_its_own_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "compared.json"
    monkeypatch.setenv(VARIABLE, str(path))
    image = InputFormat(image_size=96, resize="shortest_side", max_size=144)
    record("b", Differences(1.234e-7, 0.0), inputs=image)
    record("a", Differences(1e-6, 2e-3))
    record("b", Differences(9.876e-7, 1e-3), inputs=image)
    first, second = read_comparisons(path)
    assert (first.variant, second.variant) == ("a", "b")
    assert second.differences == {"scores": 9.9e-7, "boxes": 1e-3}
    assert (second.input, second.limited, second.test) == ("96 to 144", [1, 2], TEST.partition("[")[0])
    assert (first.input, list(first.limited)) == ("", [])
    before = path.read_text()
    record("a", Differences(1e-6, 2e-3))
    assert path.read_text() == before


def test_without_being_asked_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    before = STORED.read_bytes()
    with pytest.warns(UserWarning, match=r"docs/compared\.json has no row detr small unheard: BOXWRIGHT_RECORD="):
        record("unheard", Differences(0.0, 0.0))
    assert STORED.read_bytes() == before
