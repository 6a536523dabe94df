"""Stored costs of recipes are those of their networks.

``python tests/test_recipe_costs.py`` stores those of changed recipes anew; with ``all``, those of every recipe, which
takes minutes and is for changes of the parts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxwright.compose.recipes import list_recipes, load_recipe, resolve
from boxwright.workflows import detector_cost
from boxwright.workflows.detector_cost import COSTS, NUM_CLASSES, DetectorCost, read_stored_cost, write_stored_costs
from boxwright.workflows.info import measure_recipe

SMALL = ("rtdetr_tiny", "resnet18_classifier")


@pytest.mark.parametrize(
    "name", [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in list_recipes()]
)
def test_stored_costs_are_those_of_the_network(name: str) -> None:
    assert read_stored_cost(name) == measure_recipe(resolve(name).recipe, NUM_CLASSES)


def test_every_recipe_has_a_stored_cost_of_its_size() -> None:
    """The number of parameters is that in the golden file, which another test compares with the network."""
    golden = Path(__file__).parent / "golden"
    for name in list_recipes():
        cost = read_stored_cost(name)
        assert cost is not None, f"{name} is not as it was stored: python tests/test_recipe_costs.py"
        assert (golden / f"{name}.txt").read_text().startswith(f"{cost.params:,} parameters\n")
        assert cost.params == sum(part.params for part in cost.parts)
        assert cost.gmac == pytest.approx(sum(part.gmac for part in cost.parts), rel=1e-12)
        assert cost.image_size == resolve(name).recipe.input.image_size
    assert set(json.loads(COSTS.read_text())) == set(list_recipes())


def test_dashes_are_underscores_and_paths_have_none() -> None:
    assert read_stored_cost("rtdetr-tiny") == read_stored_cost("rtdetr_tiny") is not None
    assert read_stored_cost("rtdetr_tiny.yaml") is None


def test_costs_of_a_network_that_has_changed_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, training and the order of sections are not of the network."""
    cost = read_stored_cost("rtdetr_tiny")
    assert cost is not None
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("# As it was.\nneck: fpn\nhead: {name: fcos, num_convs: 4}\ntrain: {epochs: 1}\n")
    monkeypatch.setattr(detector_cost, "COSTS", tmp_path / "costs.json")
    monkeypatch.setattr(detector_cost, "load_recipe", lambda _: load_recipe(recipe))
    assert read_stored_cost("one") is None
    write_stored_costs([("one", cost)])
    recipe.write_text("# Otherwise.\ntrain: {epochs: 2}\nneck: fpn\nhead: {name: fcos, num_convs: 4}\naugment: {}\n")
    assert read_stored_cost("one") == cost
    for network in ("neck: fpn\nhead: {name: fcos, num_convs: 3}", "neck: bifpn\nhead: {name: fcos, num_convs: 4}"):
        recipe.write_text(f"# As it was.\n{network}\ntrain: {{epochs: 1}}\n")
        assert read_stored_cost("one") is None


def _measure_costs(*, every: bool) -> Iterator[tuple[str, DetectorCost]]:
    for name in list_recipes():
        stored = None if every else read_stored_cost(name)
        yield name, stored or measure_recipe(resolve(name).recipe, NUM_CLASSES)


if __name__ == "__main__":
    write_stored_costs(_measure_costs(every="all" in sys.argv[1:]))
