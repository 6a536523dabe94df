"""Every recipe learns eight pictures by heart, through training, moving average, post-processing and metrics.

A detector with a mistake between its loss and its boxes stays well below the limit, however long it is trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from boxwright.cli.validation import Validation
from boxwright.compose.detectors import build_resolved, load
from boxwright.compose.recipes import list_recipes, resolve, section_options
from boxwright.data.coco import open_data
from boxwright.data.records import DetectionData
from boxwright.data.shapes import draw_data_set
from boxwright.training.loop import train
from boxwright.training.run import Run

ENOUGH = 0.9

NARROW: dict[str, Any] = {"hidden_dim": 64, "num_heads": 4, "feedforward_dim": 64}
SHORT: dict[str, Any] = {"num_layers": 2, "dropout": 0.0}

REDUCED: dict[str, dict[str, Any]] = {
    "resnet_vd": {"depth": 18, "width": 16, "norm": "batch", "frozen_stages": 0},
    "resnet": {"depth": 18, "width": 16, "norm": "batch", "frozen_stages": 0},
    "hybrid_encoder": {**NARROW, "num_blocks": 1},
    "detr_encoder": {**NARROW, **SHORT},
    "deformable_encoder": {**NARROW, **SHORT},
    "detr": {**NARROW, **SHORT, "num_queries": 12},
    "deformable_detr": {**NARROW, **SHORT, "num_queries": 12},
    "rtdetr": {**NARROW, **SHORT, "eval_layers": None, "num_queries": 12, "num_denoising": 12, "class_weight": 4.0},
}
"""Options by part that make a recipe small; what is not named keeps the recipe's own options."""

TRAINING: dict[str, Any] = {
    "epochs": 1,
    "steps": 150,
    "batch_size": 8,
    "accumulate": 1,
    "lr": 2e-3,
    "backbone_lr": None,
    "lr_factors": None,
    "warmup_steps": 10,
    "multi_scale": 0.0,
    "light_share": 1.0,
    "ema": 0.99,
    "evaluations": 1,
    "precision": "float32",
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    folder = tmp_path_factory.mktemp("eight")
    draw_data_set(folder, train=8, val=1, image_size=96, seed=3)
    return open_data(folder, "train")


def small(name: str) -> dict[str, Any]:
    """The recipe with reduced sizes, for pictures of 96 pixels."""
    recipe = resolve(name).recipe
    overrides: dict[str, Any] = {"input.image_size": 96, "augment.flip": 0.0, "augment.vertical_flip": 0.0}
    if recipe["input"]["max_size"] is not None:
        overrides["input.max_size"] = 128
    overrides |= {f"train.{key}": value for key, value in TRAINING.items()}
    slots = {"backbone": recipe["backbone"], "head": recipe["head"]}
    slots |= {f"neck.{i}": part for i, part in enumerate(recipe["neck"])}
    for slot, part in slots.items():
        overrides |= {f"{slot}.{key}": value for key, value in REDUCED.get(part["name"], {}).items()}
    return resolve(name, overrides).recipe


def distinct() -> dict[str, dict[str, Any]]:
    """What is left of the recipes when they are small, by the names of those that then are one."""
    names: dict[str, list[str]] = {}
    for name in list_recipes():
        names.setdefault(json.dumps(small(name), sort_keys=True), []).append(name)
    return {", ".join(alike): json.loads(recipe) for recipe, alike in names.items()}


@pytest.mark.parametrize("recipe", [pytest.param(recipe, id=names) for names, recipe in distinct().items()])
def test_eight_pictures_are_learnt_by_heart(recipe: dict[str, Any], eight: DetectionData, tmp_path: Path) -> None:
    run = Run(
        detector=build_resolved(recipe, categories=eight.categories),
        recipe=recipe,
        data=eight,
        augmentation=section_options(recipe, "augment"),
        options=section_options(recipe, "train"),
        folder=tmp_path / "run",
        evaluate=Validation(eight),
    )
    train(run)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    found = [row["AP50"] for row in rows if row["kind"] == "eval"]
    assert max(found) >= ENOUGH, found
    metrics, _ = Validation(eight).detections(load(tmp_path / "run"))
    assert metrics.to_json()["AP50"] == pytest.approx(max(found), abs=1e-3)
