"""Every recipe learns eight images by heart, through training, moving average, post-processing and metrics.

A detector with a mistake between its loss and its boxes stays well below the limit, however long it is trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.data.object_crops import crop_objects
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from boxwright.weights.model import load
from boxwright.workflows.validation import Validation
from small_recipes import every_long_classifier, every_long_training

ENOUGH = 0.9


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    folder = tmp_path_factory.mktemp("eight")
    draw_data_set(folder, train=8, val=1, image_size=96, seed=3)
    return open_data(folder, "train")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory, eight: DetectionData) -> DetectionData:
    folder = tmp_path_factory.mktemp("crops")
    crop_objects(eight, folder / "train")
    return open_data(folder, task="classification")


def learned(recipe: Recipe, data: DetectionData, folder: Path) -> list[dict[str, Any]]:
    """Measure on the images that it was trained on."""
    run = Run(
        detector=build_resolved(recipe, categories=data.categories),
        recipe=recipe,
        data=data,
        augmentation=recipe.augment,
        folder=folder / "run",
        evaluate=Validation(data),
    )
    run_training(run)
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "eval"]


@every_long_classifier
def test_the_objects_of_eight_images_are_learned_by_heart(recipe: Recipe, crops: DetectionData, tmp_path: Path) -> None:
    reached = [row["top1"] for row in learned(recipe, crops, tmp_path)]
    assert max(reached) >= ENOUGH, reached
    assert Validation(crops).measure_classes(load(tmp_path / "run")).accuracy.top1 == max(reached)


@every_long_training
def test_eight_images_are_learned_by_heart(recipe: Recipe, eight: DetectionData, tmp_path: Path) -> None:
    # Convolutions see padding. On maps of a dozen cells, images that were learned beside padding are other images
    # without it: with inputs of several sizes, AP50 stays between 0.7 and 0.95.
    recipe = resolve(recipe, {"input.resize": "square", "input.max_size": None}).recipe
    reached = [row["AP50"] for row in learned(recipe, eight, tmp_path)]
    assert max(reached) >= ENOUGH, reached
    detector = load(tmp_path / "run")
    metrics = Validation(eight).measure(detector).to_json()
    assert metrics["AP50"] == pytest.approx(max(reached), abs=1e-3)
    assert ("segm" in metrics) == detector.needs_masks
    if "segm" in metrics:
        assert metrics["segm"]["AP50"] >= ENOUGH, metrics["segm"]
