"""The size that a demo trains with, by the speed of the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from boxwright.compose.recipes import resolve
from boxwright.workflows import demo, demo_size
from boxwright.workflows.demo_size import choose_size


@pytest.mark.parametrize(("seconds_a_step", "chosen"), [(0.6, (160, 16)), (0.61, (128, 8)), (3.0, (128, 8))])
def test_the_largest_that_makes_enough_steps(
    monkeypatch: pytest.MonkeyPatch, seconds_a_step: float, chosen: tuple[int, int]
) -> None:
    measured = []

    def measure(*arguments: object, is_enough: Callable[[], bool]) -> float:
        assert not is_enough()
        measured.append(arguments[2])
        return seconds_a_step

    monkeypatch.setattr(demo_size, "measure_step", measure)
    recipe = choose_size(resolve("rtdetr_tiny").recipe, 240.0)
    assert (recipe.input.image_size, recipe.train.batch_size) == chosen
    assert recipe.train.lr == (1.6e-3 if chosen == (160, 16) else 1.1e-3)
    assert measured == [(160,)]


def test_steps_are_measured_on_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second is too short for 400 steps anywhere."""
    monkeypatch.setattr(demo_size, "SECONDS_OF_A_SIZE", 0.0)
    monkeypatch.setattr(demo_size, "DEMO_SIZES", (demo_size.DemoSize(64, 2, 1e-3), demo_size.DemoSize(32, 1, 2e-3)))
    recipe = choose_size(resolve("rtdetr_tiny").recipe, 0.1)
    assert (recipe.input.image_size, recipe.train.batch_size, recipe.train.lr) == (32, 1, 2e-3)
    assert choose_size(resolve("rtdetr_tiny").recipe, 1e6).input.image_size == 64


def test_a_demo_that_goes_on_keeps_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = resolve("rtdetr_tiny", {"train.steps": None, "train.budget": "3m"}).recipe
    monkeypatch.setattr(demo, "choose_size", lambda _recipe, _seconds: pytest.fail("measured again"))
    chosen = resolve("rtdetr_tiny", {"image_size": 96, "train.batch_size": 8}).recipe
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(chosen.to_dict()))
    (tmp_path / "last.pt").touch()
    assert demo._choose_recipe(recipe, tmp_path) == chosen
