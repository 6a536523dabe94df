"""Recipe to detector, and detector to checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxwright.compose.building import limited_size
from boxwright.compose.options import Naming, parse_options
from boxwright.compose.parts import find_part, list_parts, unknown
from boxwright.compose.position_tables import find_resized_tables
from boxwright.compose.recipe import PartOptions, Recipe
from boxwright.compose.recipe_text import SLOTS
from boxwright.compose.recipes import resolve
from boxwright.compose.undrawn import WithoutDraws
from boxwright.contracts import TaughtHead
from boxwright.detector import Detector
from boxwright.passport import Passport
from boxwright.structures import Category, levels_for_head, main_levels
from boxwright.version import __version__
from boxwright_runtime.printable_names import one_line_errors


def build(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    num_classes: int | None = None,
    categories: Sequence[Category] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Detector:
    """Build a detector with fresh weights.

    Args:
        recipe: the name of a recipe, the path of a YAML file, or a recipe as a mapping.
        num_classes: how many classes; they are called class_0, class_1 and so on.
        categories: the classes by id and name, instead of ``num_classes``.
        overrides: what to change in the recipe, by dotted name: ``{"image_size": 320, "neck.out_channels": 128}``; a
            part is swapped by its name, ``{"neck": "fpn"}``, or with options,
            ``{"neck": {"name": "fpn", "out_channels": 128}}``.

    Raises:
        ValueError: an unknown recipe, part or option, or a value that a part refuses, in one line.
    """
    resolution = resolve(recipe, overrides)
    for note in resolution.notes:
        warnings.warn(note, stacklevel=2)
    return build_resolved(resolution.recipe, categories=_categories(num_classes, categories))


@one_line_errors()
def build_resolved(recipe: Recipe, *, categories: Sequence[Category], check_size: bool = True) -> Detector:
    """Build the detector that a resolved recipe describes, with fresh weights.

    Args:
        recipe: of ``resolve``.
        categories: label i is ``categories[i]``.
        check_size: build it without storage first, so that a number that makes a part too large is an error before
            memory is taken.

    Raises:
        ValueError: a part refuses its options or the levels before it; the message begins with the part.
    """
    if check_size:
        build_outline(recipe, categories=categories)
    try:
        with limited_size():
            return _assemble(recipe, categories)
    except RuntimeError as error:
        raise ValueError(f"the detector cannot be built with these options: {str(error).splitlines()[0]}") from error


def build_outline(recipe: Recipe, *, categories: Sequence[Category]) -> Detector | None:
    """Build the same without storage: names and shapes of its weights; None where a part cannot be built like that.

    Raises:
        ValueError: as ``build_resolved``.
    """
    try:
        with WithoutDraws(), torch.device("meta"), limited_size():
            return _assemble(recipe, categories)
    except ValueError:
        raise
    except RuntimeError:  # It needs values of tensors, or it cannot be built at all.
        return None


def _assemble(recipe: Recipe, categories: Sequence[Category]) -> Detector:
    backbone = _construct("backbone", recipe.backbone, {})
    specs = [backbone.out_spec]
    necks = []
    for address, part in recipe.parts().items():
        if address.startswith("neck"):
            necks.append(_construct(address, part, {"in_spec": main_levels(specs[-1])}))
            specs.append(necks[-1].out_spec)
    head = _construct("head", recipe.head, {"in_spec": levels_for_head(specs), "num_classes": len(categories)})
    if isinstance(head, TaughtHead) and (named := head.auxiliary_options()):
        wiring = {"in_spec": head.auxiliary_spec(), "num_classes": len(categories)}
        _add_auxiliary(head, named, wiring)
    return Detector(
        backbone,
        necks,
        head,
        categories=categories,
        input_format=recipe.input,
        recipe=recipe,
        passport=Passport(version=__version__, recipe=recipe.name),
    )


def save(detector: Detector, path: str | Path) -> None:
    """Write a detector into a file that ``boxwright.load`` reads: weights, recipe, categories and passport.

    Raises:
        ValueError: the detector was put together by hand, so that it has no recipe.
    """
    detector.save(path)


def load_weights(detector: Detector, weights: Mapping[str, Tensor]) -> None:
    """Load all weights of a detector.

    Raises:
        ValueError: names or shapes are others, in one line.
    """
    check_weights(detector, weights)
    detector.load_state_dict(weights)


def check_weights(detector: Detector, weights: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` if these are not the weights of a detector, by name and shape; it may have no storage.

    Tables of positions may have another size, see ``find_resized_tables``.
    """
    expected, resized = detector.state_dict(), find_resized_tables(detector, weights)
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    problems += [
        f"{name} is {list(weights[name].shape)} and should be {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape and name not in resized
    ]
    if problems:
        raise ValueError(
            f"weights do not fit the recipe and its {len(detector.categories)} classes: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
        )


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


def _add_auxiliary(head: TaughtHead, named: Mapping[str, Mapping[str, Any]], wiring: Mapping[str, Any]) -> None:
    """Build the auxiliary heads that the options of a head name; they are parts of the package."""
    heads, address = {}, "head.supervision.auxiliary"
    for name, options in named.items():
        # A checkpoint names them too: nothing outside the package is imported for them.
        if name not in (choices := list_parts("heads")):
            raise ValueError(f"{address}: {unknown('head', name, choices, 'heads')}")
        parsed = parse_options(
            find_part("heads", name), options, Naming(owner=f"head {name}", address=f"{address}.{name}")
        )
        heads[name] = _construct("head", PartOptions(name, parsed), wiring)
    head.add_auxiliary(heads)


def _construct(address: str, entry: PartOptions, wiring: Mapping[str, Any]) -> Any:
    # Imported already, or trusted: the recipe was checked.
    part = find_part(SLOTS[address.partition(".")[0]], entry.name)
    try:
        return part(**wiring, **entry.options)
    except ValueError as error:
        raise ValueError(f"{address} ({entry.name}): {error}") from error
    except (ArithmeticError, AssertionError, LookupError, MemoryError, TypeError) as error:
        problem = f"cannot be built with these options: {type(error).__name__}: {error}"
        raise ValueError(f"{address} ({entry.name}): {problem}") from error
