"""Validation in training where the file of val lists the classes in another order, with other ids and more of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import boxwright
from boxwright.training.log import read_log
from heard import Heard
from sparse_ids import NAMES


@pytest.fixture
def permuted(drawn: Path, tmp_path: Path) -> Path:
    """The drawn set, whose val has the classes in another order, with other ids, and one more without objects."""
    folder = shutil.copytree(drawn, tmp_path / "set")
    file = folder / "annotations" / "val.json"
    document = json.loads(file.read_text())
    new_id = {old: 1000 - 3 * old for old in NAMES}
    for annotation in document["annotations"]:
        annotation["category_id"] = new_id[annotation["category_id"]]
    categories = [{"id": new_id[one["id"]], "name": one["name"]} for one in document["categories"]]
    document["categories"] = [{"id": 1, "name": "unused"}, *categories[::-1]]
    file.write_text(json.dumps(document))
    return folder


def train(recipe: dict[str, Any], data: Path, out: Path, heard: Heard) -> list[dict[str, Any]]:
    boxwright.train(recipe, data, out=out, observer=heard)
    return [row for row in read_log(out) if row["kind"] == "eval"]


def test_classes_are_matched_by_name(tiny_recipe: dict[str, Any], drawn: Path, permuted: Path, tmp_path: Path) -> None:
    """The numbers are those of the same objects in the order of train, class by class."""
    heard = Heard()
    expected = train(tiny_recipe, drawn, tmp_path / "a", Heard())
    measured = train(tiny_recipe, permuted, tmp_path / "b", heard)
    assert len(measured) == len(expected) == 2
    for row, own in zip(measured, expected, strict=True):
        assert [one["name"] for one in row["per_class"]] == list(NAMES.values())
        assert row["per_class"] == own["per_class"]
        assert row["AP"] == own["AP"]
    # Else the comparison would say little.
    assert len({one["num_objects"] for one in measured[0]["per_class"]}) > 1
    assert any("ids differ from the model's, matched by name" in line for line in heard.notes)


def test_the_best_model_of_such_a_run_has_the_classes_of_train(
    tiny_recipe: dict[str, Any], permuted: Path, tmp_path: Path
) -> None:
    result = boxwright.train(tiny_recipe, permuted, out=tmp_path / "run", observer=Heard())
    assert {one.id: one.name for one in result.load().categories} == NAMES
    evaluated = boxwright.evaluate(result.checkpoint, permuted, device="cpu")
    best = max(row["AP"] for row in read_log(tmp_path / "run") if row["kind"] == "eval")
    assert pytest.approx(best, abs=1e-6) == evaluated.boxes.AP
