"""What a recipe is for, by its head, and which options are for another task."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from boxwright.compose.parts import find_part
from boxwright.compose.recipes import Recipe, section_options
from boxwright.structures import Task


def recipe_task(recipe: Recipe, *, trusted: Collection[str] | None = None) -> Task:
    """The task of a resolved recipe's head, which its class states as ``task``; detection where it states none."""
    head = find_part("heads", recipe["head"]["name"], trusted=trusted)
    return cast(Task, getattr(head, "task", "detection"))


def check_task(recipe: Recipe, task: Task) -> None:
    """Raise ``ValueError`` for options that would make targets wrong, in one line."""
    augmentation = section_options(recipe, "augment")
    wrong = []
    if task == "classification" and augmentation.iou_crop:
        wrong.append("augment.iou_crop to 0 (it looks for objects, and a classifier's are whole images)")
    if task == "detection" and section_options(recipe, "input").resize == "center_crop":
        wrong.append("input.resize to square or shortest_side (center_crop hides the rim of images)")
    if task == "detection" and augmentation.rand_augment[0]:
        wrong.append("augment.rand_augment to 0,0 (it turns images without their boxes)")
    if wrong:
        raise ValueError(f"for {task}, set {', and '.join(wrong)}")
