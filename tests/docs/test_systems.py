"""The table of systems in the README: every cell is filled, and names what there is."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import yaml
from pages import ROOT, load_generator

from backbone_forms import FORMS
from boxwright.compose.recipe_text import read_entries
from boxwright.compose.recipes import list_recipes, load_recipe
from small_recipes import DISTINCT

tables = load_generator()
STORED = yaml.safe_load((ROOT / "docs" / "systems.yaml").read_text())
ROWS: list[dict[str, Any]] = [row for of_subject in STORED["subjects"].values() for row in of_subject]
CELLS = ("system", "recipes", "proven", "trains", "exports")
OF_NO_PAPER = ["resnet18_classifier", "rtdetr_tiny"]
"""Recipes for small machines and first tries, in no system of a paper."""

TRAINED = {"detection": "eight images by heart", "classification": "crops by heart"}
"""Tests that train recipes, by their task."""


def list_exported_heads() -> set[str]:
    """List the heads whose detectors are exported, by the table in the test that does it."""
    tree = ast.parse((ROOT / "tests" / "exporting" / "test_exported_parts.py").read_text())
    (table,) = [
        node.value for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "HEADS"
    ]
    assert isinstance(table, ast.Dict)
    return {ast.literal_eval(key) for key in table.keys if key is not None}


def name_row(row: dict[str, Any]) -> str:
    return f"{row['system']}: {row['recipes'][0]}"


def test_there_are_these_subjects() -> None:
    assert list(STORED["subjects"]) == [
        "DETR and its backbones",
        "Deformable DETR",
        "RT-DETR's encoder",
        "BoTNet",
        "Necks",
        "Query heads of today",
    ]


@pytest.mark.parametrize("row", ROWS, ids=name_row)
def test_no_cell_is_empty(row: dict[str, Any]) -> None:
    assert set(CELLS) <= set(row) <= {*CELLS, "forms"}
    assert all(row[cell] for cell in CELLS)
    assert all(tables.system_cells(row, STORED["tests"]))


def test_every_recipe_is_in_one_row() -> None:
    assert sorted([*(name for row in ROWS for name in row["recipes"]), *OF_NO_PAPER]) == list_recipes()


@pytest.mark.parametrize("row", ROWS, ids=name_row)
def test_its_recipes_and_forms_are_those_that_are_trained(row: dict[str, Any]) -> None:
    tasks = {name: recipe.task for names, recipe in DISTINCT.items() for name in names.split(", ")}
    expected = {TRAINED[tasks[name]] for name in row["recipes"]} | ({"loss halved"} if row.get("forms") else set())
    assert set(row["trains"]) == expected
    assert set(row.get("forms", ())) <= set(FORMS)


@pytest.mark.parametrize("row", ROWS, ids=name_row)
def test_its_parts_are_those_that_are_exported(row: dict[str, Any]) -> None:
    """Necks and backbones are exported one by one, whichever there are."""
    recipes = [load_recipe(name) for name in row["recipes"]]
    heads, necks = (
        {one["name"] for recipe in recipes for one in read_entries(slot, recipe[slot], "")} for slot in ("head", "neck")
    )
    assert heads <= list_exported_heads()
    assert "from bytes to boxes" in row["exports"]
    assert ("its neck" in row["exports"]) <= (necks != {"identity"})
    assert ("every form of the backbone" in row["exports"]) == bool(row.get("forms"))


def test_every_form_is_of_a_system_or_of_a_study() -> None:
    used = {name for row in ROWS for name in row.get("forms", ())}
    assert set(FORMS) - used == {"non_local"}


@pytest.mark.parametrize("name", STORED["tests"])
def test_tests_that_are_named_exist(name: str) -> None:
    file, _, test = STORED["tests"][name].partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_of_systems_is_what_is_stored() -> None:
    assert tables.read_table("systems") == tables.systems(), tables.COMMAND


def test_a_proof_is_what_was_measured() -> None:
    assert re.fullmatch(r"ATSS: outputs \S+, assignment equal, .+ \(mmdetection\)", tables.proof("ATSS")) is None
    assert re.fullmatch(r"ATSS: assignment equal, loss terms \S+, gradients \S+ \(mmdetection\)", tables.proof("ATSS"))
    with pytest.raises(ValueError, match=r"docs/conformance\.json has nothing of 'no such part'"):
        tables.proof("no such part")
