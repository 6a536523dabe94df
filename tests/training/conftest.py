"""A run's parts, made small, and a fake validation whose metrics cost nothing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from boxwright.checkpoints import read_checkpoint
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.data.loading.loader import train_loader
from boxwright.data.loading.sampler import BatchSampler
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.structures import Batch
from boxwright.training import log, loop
from boxwright.training.run import Run
from boxwright.training.step import train_step

MakeRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second for each run; the one test that is about it takes this back."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.fixture(scope="session")
def data(drawn: Path) -> DetectionData:
    return open_data(drawn, "train")


@pytest.fixture
def batch(data: DetectionData) -> Batch:
    """Four images as training has them, all with objects."""
    recipe_format = resolve("rtdetr_tiny", {"image_size": 64}).recipe.input
    full = [i for i, record in enumerate(data.records) if len(record.labels)]
    sampler = BatchSampler(seed=0, num_samples=len(data.records), batch_size=40, num_steps=1, image_sizes=(64,))
    light = resolve("rtdetr_tiny", {"augment.iou_crop": 0.0}).recipe.augment
    everything = next(iter(train_loader(data, augmentation=light, input_format=recipe_format, sampler=sampler)))
    ids = {data.records[i].image_id for i in full}
    chosen = [i for i, image_id in enumerate(everything.image_ids) if image_id in ids][:4]
    return Batch(
        everything.images[chosen],
        None,
        [everything.targets[i] for i in chosen],
        [everything.sizes[i] for i in chosen],
        [everything.image_ids[i] for i in chosen],
    )


@pytest.fixture
def frozen_statistics() -> Callable[[Detector], Detector]:
    """Puts a detector in training, but its batch norms in evaluation: a batch's statistics depend on its split."""

    def freeze(detector: Detector) -> Detector:
        detector.train()
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return detector

    return freeze


class WeightSum:
    """Stands in for the validation: numbers that depend on every weight, and calls that can be counted."""

    num_images = 6

    def __init__(self) -> None:
        self.calls: list[int | None] = []

    def __call__(self, detector: Detector, limit: int | None = None) -> dict[str, Any]:
        self.calls.append(limit)
        total = sum(float(parameter.detach().double().abs().sum()) for parameter in detector.parameters())
        return {"AP": total % 1, "AP50": total % 1, "per_class": []}


@pytest.fixture
def make_run(tmp_path: Path, tiny_recipe: dict[str, Any], data: DetectionData) -> MakeRun:
    """A fresh run: ``make_run("name", seed, steps=20, schedule__warmup_steps=5)``, ``__`` for the dots in options of
    training; ``seed`` is of its initial weights."""

    def make(name: str = "run", weights_seed: int = 0, **options: Any) -> Run:
        overrides = {f"train.{key.replace('__', '.')}": value for key, value in options.items()}
        recipe = resolve(tiny_recipe, overrides).recipe
        torch.manual_seed(weights_seed)
        return Run(
            detector=build_resolved(recipe, categories=data.categories),
            recipe=recipe,
            data=data,
            augmentation=recipe.augment,
            folder=tmp_path / name,
            evaluate=WeightSum(),
        )

    return make


@pytest.fixture(autouse=True)
def every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log every step, whenever it is done."""
    monkeypatch.setattr(log, "LOG_INTERVAL", 0.0)


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ctrl-C in the middle of a step, counted from now."""

    def at(step: int, number: int = signal.SIGINT) -> None:
        calls = iter(range(1, 1000))

        def interrupted(*arguments: Any) -> Any:
            if next(calls) == step:
                signal.raise_signal(number)
            return train_step(*arguments)

        monkeypatch.setattr(loop, "train_step", interrupted)

    return at


def read_run(run: Run, name: str) -> dict[str, Any]:
    return read_checkpoint(run.folder / name)
