"""Facts that must not drift: every option of every recipe, its size, names and shapes in its checkpoint, its costs.

The names are public API, because checkpoints are written with them. ``golden/RECIPE.txt`` holds them, one line per
name with numbers left out, and a digest of the whole list; ``golden/recipes/RECIPE.yaml`` holds the resolved recipe
with all its options, so that a default that changes is seen. If a change is meant, write the files anew with
``python tests/test_recipes_golden.py`` and say in the change how old checkpoints are read.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import list_recipes, resolve
from boxwright.detector import Detector
from boxwright.layers.rep_vgg import RepVGGBlock
from boxwright.structures import Category
from boxwright.workflows.info import measure_recipe

GOLDEN = Path(__file__).parent / "golden"

# Parameters and GMAC at 640 x 640 as published, each followed by the same with RepVGG blocks folded.
PUBLISHED = {
    "rtdetr_r18": (20_184_464, 19_983_248, 30.744, 30.252),
    "rtdetr_r34": (31_441_668, 31_240_452, 46.797, 46.306),
    "rtdetr_r50_m": (36_593_772, 36_392_556, 50.300, 49.808),
    "rtdetr_r50": (42_891_372, 42_095_724, 68.890, 66.924),
    "rtdetr_r101": (76_556_268, 74_772_972, 130.286, 125.862),
    "rtdetr_l": (32_925_036, 32_129_388, 55.838, 53.872),
    "rtdetr_x": (67_374_188, 65_590_892, 117.985, 113.561),
    "rtdetr_h": (125_584_348, 122_420_188, 246.238, 238.373),
}

# The published models run the encoder's box head (256-256-256-4) on all 8,400 tokens, ours on the selected 300.
SPARED = (8400 - 300) * (2 * 256 * 256 + 256 * 4) / 1e9


def without_storage(recipe: str) -> Detector:
    """The recipe's detector for 80 classes on the meta device: names and shapes, no numbers, no time."""
    categories = [Category(i, f"class {i}") for i in range(80)]
    with torch.device("meta"):
        return build_resolved(resolve(recipe, {}).recipe, categories=categories)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def described(recipe: str) -> str:
    """Size, names and shapes of the recipe's checkpoint: the digest of all, then each kind of name with its count."""
    detector = without_storage(recipe)
    state = detector.state_dict()
    lines = [f"{name} {list(tensor.shape)}" for name, tensor in state.items()]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    kinds = Counter(re.sub(r"\.\d+(?=\.)", ".#", line) for line in lines)
    body = [f"{count:4} x {kind}" for kind, count in kinds.items()]
    size = f"{num_parameters(detector):,} parameters"
    return "\n".join([size, f"sha256 {digest} of {len(lines)} names", *body]) + "\n"


def options(recipe: str) -> str:
    """The resolved recipe as YAML, with every option."""
    return yaml.safe_dump(resolve(recipe).recipe.to_dict(), sort_keys=False, width=100)


@pytest.mark.parametrize("recipe", list_recipes())
def test_names_and_shapes_in_checkpoints(recipe: str) -> None:
    assert described(recipe).splitlines() == (GOLDEN / f"{recipe}.txt").read_text().splitlines()


@pytest.mark.parametrize("recipe", list_recipes())
def test_every_option_of_every_recipe(recipe: str) -> None:
    assert options(recipe).splitlines() == (GOLDEN / "recipes" / f"{recipe}.yaml").read_text().splitlines()


def test_no_golden_list_is_left_over() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == list_recipes()
    assert sorted(path.stem for path in (GOLDEN / "recipes").glob("*")) == list_recipes()


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_published_parameters(recipe: str) -> None:
    detector = without_storage(recipe)
    expected, expected_folded, _, _ = PUBLISHED[recipe]
    assert num_parameters(detector) == expected
    for block in [module for module in detector.modules() if isinstance(module, RepVGGBlock)]:
        block.fold_norms()
    assert num_parameters(detector) == expected_folded


@pytest.mark.parametrize(
    "recipe", ["rtdetr_r18", *(pytest.param(name, marks=pytest.mark.slow) for name in list(PUBLISHED)[1:])]
)
def test_published_costs(recipe: str) -> None:
    facts = measure_recipe(resolve(recipe, {}).recipe, 80)
    _, _, expected, expected_folded = PUBLISHED[recipe]
    assert facts.gmac == pytest.approx(expected, rel=1e-4)
    assert facts.deployed_gmac + SPARED == pytest.approx(expected_folded, rel=1e-4)


@pytest.mark.parametrize(
    ("recipe", "published"),
    [
        ("rtdetr_l", 110),
        pytest.param("rtdetr_x", 234, marks=pytest.mark.slow),
        pytest.param("rtdetr_h", 490, marks=pytest.mark.slow),
    ],
)
def test_published_operations_of_the_large_ones(recipe: str, published: float) -> None:
    """In 10⁹, two for each multiply-add, the encoder's box head on the selected tokens alone."""
    gmac = measure_recipe(resolve(recipe, {}).recipe, 80).gmac - SPARED
    assert 2 * gmac == pytest.approx(published, rel=0.01)


if __name__ == "__main__":
    (GOLDEN / "recipes").mkdir(exist_ok=True)
    for name in list_recipes():
        (GOLDEN / f"{name}.txt").write_text(described(name))
        (GOLDEN / "recipes" / f"{name}.yaml").write_text(options(name))
