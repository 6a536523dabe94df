"""What a recipe is for, by its head, and which options are for another task."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from boxwright.compose.parts import find_part
from boxwright.compose.recipes import Recipe
from boxwright.structures import Task


def recipe_task(recipe: Recipe, *, trusted: Collection[str] | None = None) -> Task:
    """The task of a resolved recipe's head, which its class states as ``task``; detection where it states none."""
    head = find_part("heads", recipe["head"]["name"], trusted=trusted)
    return cast(Task, getattr(head, "task", "detection"))


def check_task(recipe: Recipe, task: Task) -> None:
    """Raise ``ValueError`` for options that would make targets wrong, in one line."""
    augment = recipe.get("augment", {})
    operations = augment.get("rand_augment", (0, 0))[0]
    if task == "detection":
        if recipe["input"]["resize"] == "centre_crop":
            raise ValueError(
                "input.resize centre_crop hides the rim of pictures and is for classifiers; take square, or shortest_side"
            )
        if operations:
            raise ValueError(
                "augment.rand_augment turns pictures without their boxes: it is for a classifier; set it to 0,0"
            )
    elif augment.get("iou_crop"):
        raise ValueError(
            "augment.iou_crop is about the objects of a picture, and a classifier's are whole pictures: set it to 0"
        )
