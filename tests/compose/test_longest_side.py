"""One option moves both sides of images that keep their shape: ``--image-size``, unless both are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from boxwright.compose.recipes import list_recipes, load_recipe, resolve

WITH_LONGEST_SIDE = [name for name in list_recipes() if "max_size" in load_recipe(name).get("input", {})]


def test_there_are_such_recipes() -> None:
    assert len(WITH_LONGEST_SIDE) >= 37
    assert "efficientdet_d0" in WITH_LONGEST_SIDE
    assert "detr_r50" in WITH_LONGEST_SIDE


@pytest.mark.parametrize("name", WITH_LONGEST_SIDE)
def test_every_recipe_keeps_its_proportion_and_says_so(name: str) -> None:
    own = resolve(name).recipe.input
    assert own.max_size is not None
    half = own.image_size // 2
    recipe, notes = resolve(name, {"image_size": str(half)})
    assert recipe.input.image_size == half
    assert recipe.input.max_size == pytest.approx(own.max_size / 2, abs=1)
    (note,) = [note for note in notes if "longest side" in note]
    assert f"{recipe.input.max_size} pixels instead of {own.max_size}" in note
    assert "--input.max_size" in note
    # A wide image costs a quarter, and not half.
    wide, narrow = (np.prod(one.input_size(600, 1800)) for one in (own, recipe.input))
    assert wide / narrow == pytest.approx(4, rel=0.03)
    # Both of a typed pair count, and nothing is said.
    recipe, notes = resolve(name, {"image_size": half, "input.max_size": own.max_size})
    assert (recipe.input.image_size, recipe.input.max_size) == (half, own.max_size)
    assert notes == ()


@pytest.mark.parametrize("key", ["image_size", "image-size", "input.image_size", "input.image-size", "input"])
def test_however_it_is_typed(key: str) -> None:
    overrides: dict[str, Any] = {key: {"image_size": 400}} if key == "input" else {key: 400}
    assert resolve("detr_r50", overrides).recipe.input.max_size == 666
    assert resolve("detr_r50", {**overrides, "input.max_size": 900}).recipe.input.max_size == 900
    assert resolve("detr_r50", {**overrides, "input.max_size": None}).recipe.input.max_size is None


def test_a_resolved_recipe_and_a_file_do_likewise(tmp_path: Path) -> None:
    recipe = resolve("detr_r50", {"image_size": 400}).recipe
    again, notes = resolve(recipe, {"image_size": 400})
    assert (again.input, notes) == (recipe.input, ())
    assert resolve(recipe, {"image_size": 200}).recipe.input.max_size == 333
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(load_recipe("efficientdet_d0")))
    assert resolve(file, {"image_size": 256}).recipe.input.max_size == 256
    # What a recipe states is what counts where nothing is typed.
    file.write_text(yaml.safe_dump(load_recipe("efficientdet_d0") | {"input": {**dict(wide()), "image_size": 256}}))
    assert resolve(file).recipe.input.max_size == 512


def wide() -> dict[str, Any]:
    content = load_recipe("efficientdet_d0")["input"]
    assert isinstance(content, dict)
    return content


def test_another_way_to_resize_and_wrong_sizes_are_what_they_were() -> None:
    square = {"image_size": 320, "input.resize": "square", "input.max_size": None}
    assert resolve("detr_r50", square).recipe.input.max_size is None
    with pytest.raises(ValueError, match="max_size 1333 needs resize shortest_side"):
        resolve("detr_r50", {"image_size": 320, "input.resize": "square"})
    with pytest.raises(ValueError, match=r"^input.image_size: .*huge"):
        resolve("detr_r50", {"image_size": "huge"})
    with pytest.raises(ValueError, match="image_size must be at least 1, not -5"):
        resolve("detr_r50", {"image_size": -5})
    assert resolve("rtdetr_r18", {"image_size": 320}).notes == ()
