"""Recipe to detector, and detector to checkpoint and back."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxwright.checkpoints import categories_of, find_checkpoint, read_checkpoint, weights_of
from boxwright.compose.parts import find_part
from boxwright.compose.recipe import PartOptions, Recipe
from boxwright.compose.recipe_text import SLOTS
from boxwright.compose.recipes import resolve
from boxwright.detector import Detector
from boxwright.structures import Category, levels_for_head, main_levels

PRECISIONS = ("float32", "float16", "bfloat16", "float64")


def build(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    num_classes: int | None = None,
    categories: Sequence[Category] | None = None,
    **overrides: Any,
) -> Detector:
    """Build a detector with fresh weights.

    Args:
        recipe: the name of a recipe, the path of a YAML file, or a recipe as a mapping.
        num_classes: how many classes; they are called class_0, class_1 and so on.
        categories: the classes by id and name, instead of ``num_classes``.
        overrides: what to change in the recipe: ``neck="fpn"``, ``image_size=320``,
            ``neck={"name": "fpn", "out_channels": 128}``, by dotted key ``**{"neck.out_channels": 128}``.

    Raises:
        ValueError: an unknown recipe, part or option, or a value that a part refuses, in one line.
    """
    resolution = resolve(recipe, overrides)
    for note in resolution.notes:
        warnings.warn(note, stacklevel=2)
    return build_resolved(resolution.recipe, categories=_categories(num_classes, categories))


def build_resolved(recipe: Recipe, *, categories: Sequence[Category]) -> Detector:
    """Build the detector that a resolved recipe describes, with fresh weights.

    Args:
        recipe: of ``resolve``.
        categories: label i is ``categories[i]``.

    Raises:
        ValueError: a part refuses its options or the levels before it; the message begins with the part.
    """
    backbone = _construct("backbone", recipe.backbone, {})
    specs = [backbone.out_spec]
    necks = []
    for address, part in recipe.parts().items():
        if address.startswith("neck"):
            necks.append(_construct(address, part, {"in_spec": main_levels(specs[-1])}))
            specs.append(necks[-1].out_spec)
    head = _construct("head", recipe.head, {"in_spec": levels_for_head(specs), "num_classes": len(categories)})
    return Detector(backbone, necks, head, categories=categories, input_format=recipe.input, recipe=recipe)


def load(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    image_size: int | None = None,
    precision: str | None = None,
    trusted: Collection[str] = (),
) -> Detector:
    """Load a trained detector, in evaluation mode.

    The moving average of the weights is loaded where the checkpoint has one. No code from the file is run.

    Args:
        path: a checkpoint, or the folder of a run: its ``best.pt``, or else its ``last.pt``.
        device: cpu, cuda, cuda:1 ...; the CPU where None.
        image_size: size of the network input in pixels, as ``input.image_size`` in a recipe; the recipe's where None.
            The longest side, where it is limited, changes with it.
        precision: float32, float16, bfloat16 or float64: type of the weights, and of what is computed with them.
        trusted: modules that may be imported for parts outside Boxwright; those imported already always may.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint, a damaged one, one whose weights do not fit its recipe, or an image size or a
            precision that there is not.
    """
    if precision not in (None, *PRECISIONS):
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision}")
    path = find_checkpoint(path)
    content = read_checkpoint(path)
    try:
        recipe = Recipe.from_dict(content["recipe"], trusted=trusted)
        detector = build_resolved(recipe, categories=categories_of(content))
        load_weights(detector, weights_of(content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if image_size is not None:
        detector.input_format = recipe.input.at_size(image_size)
        detector.recipe = dataclasses.replace(recipe, input=detector.input_format)
    if precision is not None:
        detector.to(getattr(torch, precision))
    return detector.to(device or "cpu").eval()


def save(detector: Detector, path: str | Path) -> None:
    """Write a detector into a file that ``load`` reads: weights, recipe and categories.

    Raises:
        ValueError: the detector was put together by hand, so that it has no recipe.
    """
    detector.save(path)


def load_weights(detector: Detector, weights: Mapping[str, Tensor]) -> None:
    """Load all weights of a detector.

    Raises:
        ValueError: names or shapes are others, in one line.
    """
    expected = detector.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    problems += [
        f"{name} is {list(weights[name].shape)} and should be {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        raise ValueError(
            f"weights do not fit the recipe and its {len(detector.categories)} classes: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
        )
    detector.load_state_dict(weights)


def _categories(num_classes: int | None, categories: Sequence[Category] | None) -> list[Category]:
    if categories is None:
        if num_classes is None:
            raise ValueError("how many classes? give num_classes=3, or categories with ids and names")
        if num_classes < 1:
            raise ValueError(f"num_classes is at least 1, not {num_classes}")
        return [Category(i, f"class_{i}") for i in range(num_classes)]
    if num_classes not in (None, len(categories)):
        raise ValueError(f"num_classes is {num_classes}, but there are {len(categories)} categories; give only one")
    if not categories:
        raise ValueError("categories are empty; a detector has at least one class")
    return list(categories)


def _construct(address: str, entry: PartOptions, wiring: Mapping[str, Any]) -> Any:
    # Imported already, or trusted: the recipe was checked.
    part = find_part(SLOTS[address.partition(".")[0]], entry.name)
    try:
        return part(**wiring, **entry.options)
    except ValueError as error:
        raise ValueError(f"{address} ({entry.name}): {error}") from error
