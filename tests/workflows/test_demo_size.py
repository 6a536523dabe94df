"""The size that a demo trains with, by the speed of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from boxwright.compose.recipes import resolve
from boxwright.structures import Batch
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


def test_of_two_processes_one_is_measured_with_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    images = []

    def measure(
        _detector: object, batches: Callable[[int], Iterator[Batch]], sizes: tuple[int], *_: object, **__: object
    ) -> float:
        images.append((len(next(batches(sizes[0])).images), threads[-1]))
        return 0.5

    monkeypatch.setattr(demo_size, "measure_step", measure)
    recipe = resolve("rtdetr_tiny", {"train.runtime.processes": 2}).recipe
    # 0.5 s alone are 0.625 s beside another one: 400 steps take 250 s.
    assert choose_size(recipe, 249.0).input.image_size == 128
    chosen = choose_size(recipe, 251.0)
    assert (chosen.input.image_size, chosen.train.batch_size, chosen.train.runtime.processes) == (160, 16, 2)
    assert images == [(8, 2), (8, 2)]
    assert threads == [2, 4, 2, 4]


@pytest.mark.parametrize(
    ("device", "threads", "expected"), [("cpu", 1, 1), ("cpu", 2, 2), ("cpu", 16, 2), ("cuda", 16, 1)]
)
def test_two_processes_where_two_cores_compute(
    device: str, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(demo_size, "choose_device", torch.device)
    assert demo_size.count_processes(device) == expected


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
    assert demo._choose_recipe(recipe, tmp_path, None) == chosen
