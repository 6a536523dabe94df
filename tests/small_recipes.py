"""The recipes that come with Boxwright, at sizes that train in seconds."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pytest

from boxwright.compose.recipe import Recipe
from boxwright.compose.recipe_text import SLOTS, read_entries
from boxwright.compose.recipes import list_recipes, load_recipe, resolve
from boxwright.structures import Task
from narrow_heads import narrow_queries, narrow_regions
from part_checks import ONE_OF_EACH_FAMILY

NARROW: dict[str, Any] = {"hidden_dim": 64, "num_heads": 4, "feedforward_dim": 64}
SHORT: dict[str, Any] = {"num_layers": 2, "dropout": 0.0}
QUERIES = narrow_queries(hidden_dim=64, num_heads=4, feedforward_dim=64)

FEW = {
    **narrow_regions(hidden_dim=64, pre_nms_top_k=100, post_nms_top_k=50, num_samples=32),
    "detection.max_detections": 20,
}

REDUCED: dict[str, dict[str, Any]] = {
    "resnet_vd": {"depth": 18, "width": 16, "norm": "batch", "frozen_stages": 0},
    "resnet": {"depth": 18, "width": 16, "norm": "batch", "frozen_stages": 0, "block.drop_path": 0.0},
    "botnet": {"depth": 50, "width": 16, "block.drop_path": 0.0, "norm": "batch", "frozen_stages": 0, "image_size": 96},
    "non_local": {"depth": 18, "width": 16, "norm": "batch", "frozen_stages": 0},
    "rfp": {"depth": 18, "width": 16, "norm": "batch", "frozen_stages": 0, "out_channels": 64},
    "timm": {"model": "test_efficientnet", "drop_path": 0.0, "norm": "batch", "norm_momentum": 0.1, "frozen": []},
    # Patches by one convolution take longer to learn.
    "vit": {
        "model": "test_vit",
        "blocks": (0, 1, 2),
        "num_windows": 1,
        "global_blocks": (),
        "patch_size": 16,
        "table_size": 96,
        "conv_patches": True,
    },
    "multi_scale_projector": {"out_channels": 64, "num_blocks": 1},
    "fpn": {"out_channels": 64},
    "pafpn": {"out_channels": 64},
    "augfpn": {"out_channels": 64},
    "bifpn": {"out_channels": 64, "repeats": 2, "norm_momentum": 0.1},
    "nas_fpn": {"out_channels": 64, "repeats": 2, "norm_momentum": 0.1},
    "retinanet": {"num_convs": 2, "detection.max_detections": 20},
    "fcos": {"num_convs": 2, "detection.max_detections": 20},
    "efficientdet": {"num_convs": 2, "norm_momentum": 0.1, "detection.max_detections": 20},
    "faster_rcnn": FEW,
    "mask_rcnn": {**FEW, "mask.hidden_dim": 32},
    "cascade_rcnn": FEW,
    "hybrid_encoder": {**NARROW, "num_blocks": 1},
    "lite_encoder": {"hidden_dim": 64, "num_blocks": 1},
    "vit_sta": {"model": "test_vit", "blocks": (0, 1, 2), "embed_dim": None},
    "detr_encoder": {**NARROW, **SHORT},
    "deformable_encoder": {**NARROW, **SHORT},
    "detr": QUERIES,
    "deformable_detr": QUERIES,
    "dfine": {**QUERIES, "eval_layers": None, "denoising.num_queries": 12, "loss_weights.class_weight": 4.0},
    "dino": {**QUERIES, "eval_layers": None, "denoising.num_queries": 12, "loss_weights.class_weight": 4.0},
    "lwdetr": {
        **QUERIES,
        "num_queries": 30,
        "decoder.num_sampling_heads": 4,
        "supervision.num_groups": 3,
        "loss_weights.class_weight": 4.0,
    },
    "rtdetr": {**QUERIES, "eval_layers": None, "denoising.num_queries": 12, "loss_weights.class_weight": 4.0},
}
"""Options by part that make a recipe small; what is not named keeps the recipe's own options."""

AUXILIARY = {
    "atss": {"num_convs": 1},
    "faster_rcnn": {
        "rpn.pre_nms_top_k": "100,50",
        "rpn.post_nms_top_k": "50,50",
        "roi.num_samples": 32,
        "boxes.hidden_dim": 64,
    },
}
"""The auxiliary heads of a recipe that has them, as small as ``FEW``."""

TRAINING: dict[str, Any] = {
    "epochs": 1,
    "steps": 150,
    "batch_size": 8,
    "lr": 2e-3,
    "backbone_lr": None,
    "ema_decay": 0.99,
    "schedule.evaluations": 1,
    "optimizer.name": "adamw",
    "optimizer.decayed_names": None,
    "optimizer.lr_factors": None,
    "optimizer.max_grad_norm": 0.1,
    "schedule.warmup_steps": 10,
    "schedule.decay": "cosine",
    "schedule.decay_fraction": 0.5,
    "schedule.milestones": None,
    "schedule.final_lr_ratio": 0.02,
    "schedule.no_aug_fraction": 1.0,
    "schedule.no_aug_epochs": None,
    "schedule.mixing_epochs": None,
    "schedule.ema_warmup": None,
    "batches.accumulate_steps": 1,
    "batches.multi_scale": 0.0,
    "batches.group_aspect_ratios": 0,
    "batches.skip_empty_images": False,
    "runtime.precision": "float32",
    "runtime.device": "cpu",
    "runtime.workers": 0,
    "runtime.sync_norms": False,
}


def small(name: str) -> Recipe:
    """The recipe with reduced sizes, for images of 96 pixels."""
    recipe = load_recipe(name)
    overrides: dict[str, Any] = {"input.image_size": 96, "augment.flip": 0.0, "augment.vertical_flip": 0.0}
    overrides |= {"augment.mosaic": 0.0, "augment.mixup": 0.0}
    # What a classifier sees of an image has to be the same each time too.
    overrides |= {"augment.resized_crop": [1.0, 1.0], "augment.rand_augment": [0, 0]}
    if recipe.get("input", {}).get("max_size") is not None:
        overrides["input.max_size"] = 128
    overrides |= {f"train.{key}": value for key, value in TRAINING.items()}
    for slot in SLOTS:
        entries = read_entries(slot, recipe[slot], name)
        for i, entry in enumerate(entries):
            address = slot if len(entries) == 1 else f"{slot}.{i}"
            overrides |= {f"{address}.{key}": value for key, value in REDUCED.get(entry["name"], {}).items()}
    if recipe["head"].get("supervision", {}).get("auxiliary"):
        overrides["head.supervision.auxiliary"] = AUXILIARY
    return resolve(recipe, overrides).recipe


def distinct() -> dict[str, Recipe]:
    """The recipes that differ when they are small, by the names of those that then are one."""
    recipes = {name: small(name) for name in list_recipes()}
    names: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        names.setdefault(json.dumps(recipe.to_dict(), sort_keys=True), []).append(name)
    return {", ".join(alike): recipes[alike[0]] for alike in names.values()}


def _parameters(recipes: dict[str, Recipe], marked: Collection[str] = ()) -> pytest.MarkDecorator:
    slow = {names: [pytest.mark.slow] if names in marked else [] for names in recipes}
    return pytest.mark.parametrize(
        "recipe", [pytest.param(recipe, id=names, marks=slow[names]) for names, recipe in recipes.items()]
    )


def _of(task: Task) -> dict[str, Recipe]:
    return {names: recipe for names, recipe in DISTINCT.items() if recipe.task == task}


def _not_the_first_of_their_head(recipes: dict[str, Recipe]) -> list[str]:
    first: dict[str, str] = {}
    # BoTNet's have fifty layers where others have eighteen.
    for names, recipe in sorted(recipes.items(), key=lambda item: item[1].backbone.name == "botnet"):
        first.setdefault(recipe.head.name, names)
    return [names for names in recipes if names not in first.values()]


def _beside_those_with_every_part(recipes: dict[str, Recipe]) -> list[str]:
    """Go from the heads to the backbones and necks that no chosen recipe has yet."""
    first = recipes.keys() - set(_not_the_first_of_their_head(recipes))
    seen = {part.name for names in first for part in recipes[names].parts().values()}
    others = []
    for names in [names for names in recipes if names not in first]:
        parts = {part.name for part in recipes[names].parts().values()}
        if parts <= seen:
            others.append(names)
        seen |= parts
    return others


def _beside_one_of_each_family(recipes: dict[str, Recipe]) -> list[str]:
    others = [names for names, recipe in recipes.items() if recipe.head.name not in ONE_OF_EACH_FAMILY]
    return [*others, *_not_the_first_of_their_head(recipes)]


DISTINCT = distinct()
"""Made once: every process that runs tests makes them."""

every_recipe = _parameters(DISTINCT, _not_the_first_of_their_head(DISTINCT))
every_classifier = _parameters(_of("classification"))
every_detector = _parameters(_of("detection"), _not_the_first_of_their_head(_of("detection")))
"""One recipe of every head, and as slow tests the others, which have other backbones and necks."""

every_part = _parameters(DISTINCT, _beside_those_with_every_part(DISTINCT))
"""Recipes that have every part that any recipe has, and as slow tests the others."""

every_long_training = _parameters(_of("detection"), _beside_one_of_each_family(_of("detection")))
every_long_classifier = _parameters(_of("classification"), _not_the_first_of_their_head(_of("classification")))
"""One recipe of every family of heads, and as slow tests the others."""
