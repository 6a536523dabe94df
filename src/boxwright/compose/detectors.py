"""Recipe to detector, and detector to checkpoint and back."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxwright.compose import legacy
from boxwright.compose.options import Naming, parse_options
from boxwright.compose.parts import find_part
from boxwright.compose.recipes import SLOTS, Recipe, resolve, section_options
from boxwright.compose.tasks import check_task, recipe_task
from boxwright.detector import Detector
from boxwright.structures import Category, levels_for_head, main_levels

CHECKPOINT_FORMAT = "boxwright"
CHECKPOINT_VERSION = legacy.VERSION


def build(
    recipe: str | Path | Mapping[str, Any],
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


def build_resolved(
    recipe: Recipe, *, categories: Sequence[Category], trusted: Collection[str] | None = None
) -> Detector:
    """Build the detector that a resolved recipe describes, with fresh weights.

    Args:
        recipe: with a name and options for every part.
        categories: label ``i`` is ``categories[i]``.
        trusted: modules that may be imported for parts outside Boxwright; None for all. See ``find_part``.

    Raises:
        ValueError: a part refuses its options or the levels it is given; the message begins with the part.
    """
    try:
        backbone_entry, neck_entries, head_entry = (recipe[slot] for slot in SLOTS)
    except KeyError as error:
        raise ValueError(f"the recipe is not resolved: {error} is missing") from error
    backbone = _construct("backbone", backbone_entry, trusted, {})
    specs = [backbone.out_spec]
    necks = []
    for i, entry in enumerate(neck_entries):
        address = "neck" if len(neck_entries) == 1 else f"neck.{i}"
        necks.append(_construct(address, entry, trusted, {"in_spec": main_levels(specs[-1])}))
        specs.append(necks[-1].out_spec)
    wiring = {"in_spec": levels_for_head(specs), "num_classes": len(categories)}
    head = _construct("head", head_entry, trusted, wiring)
    input_format = section_options(recipe, "input")
    check_task(recipe, recipe_task(recipe, trusted=trusted))
    return Detector(backbone, necks, head, categories=categories, input_format=input_format)


def detector_state(detector: Detector, recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint must hold for ``load``; training adds its own keys.

    Args:
        detector: its weights and categories are taken, as they are.
        recipe: the resolved recipe that it was built from.
    """
    return {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "recipe": recipe,
        "categories": [(category.id, category.name) for category in detector.categories],
        "model": detector.state_dict(),
    }


def load(path: str | Path, *, trusted: Collection[str] = ()) -> Detector:
    """Load a trained detector, in evaluation mode, on the CPU.

    The moving average of the weights is taken where the checkpoint has one. No code from the file is run.

    Args:
        path: a checkpoint, or the folder of a run: its ``best.pt``, or else its ``last.pt``.
        trusted: modules that may be imported for parts outside Boxwright; those imported already always may.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint, a damaged one, or one whose weights do not fit its recipe.
    """
    path = checkpoint_path(path)
    checkpoint = read_checkpoint(path)
    try:
        categories = [Category(int(number), str(name)) for number, name in checkpoint["categories"]]
        detector = build_resolved(checkpoint["recipe"], categories=categories, trusted=trusted)
        _load_weights(detector, checkpoint.get("ema") or checkpoint["model"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return detector.eval()


def checkpoint_path(path: str | Path) -> Path:
    """A checkpoint's file: ``path`` itself, or the best or else the last checkpoint of a run's folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in ("best.pt", "last.pt"):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path}: no checkpoint in this folder; a run has best.pt or last.pt")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; executes nothing that the file brings.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of Boxwright, or a damaged one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a checkpoint (.pt) or the folder of a run")
    try:
        with warnings.catch_warnings():
            # Of files that are no checkpoint torch complains in several lines; ours below says it in one.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # Unpickling bytes that are no pickle raises nearly every type there is.
        raise ValueError(
            f"{path}: not a checkpoint, or a damaged one: it is not readable as plain tensors and values"
        ) from error
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{path}: holds weights, but not of Boxwright; a checkpoint comes from `boxwright train`")
    if content.get("version") not in range(1, CHECKPOINT_VERSION + 1):
        raise ValueError(
            f"{path}: has checkpoint format {content.get('version')}, this release reads 1 to "
            f"{CHECKPOINT_VERSION}; use the release that wrote it"
        )
    missing = [key for key in ("recipe", "categories", "model") if key not in content]
    if missing:
        raise ValueError(f"{path}: a damaged checkpoint, without {', '.join(missing)}")
    return legacy.upgrade_checkpoint(content)


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


def _construct(address: str, entry: Recipe, trusted: Collection[str] | None, wiring: Mapping[str, Any]) -> Any:
    name = entry["name"]
    part = find_part(SLOTS[address.partition(".")[0]], name, trusted=trusted)
    values = {key: value for key, value in entry.items() if key != "name"}
    options = parse_options(part, values, Naming(owner=name, address=address))
    try:
        return part(**wiring, **options)
    except ValueError as error:
        raise ValueError(f"{address} ({name}): {error}") from error


def _load_weights(detector: Detector, weights: Mapping[str, Tensor]) -> None:
    expected = detector.state_dict()
    # Until the heads have their present names: then this goes.
    weights = {
        name
        if name in expected
        else name.replace(".input_projection.", ".widths.").replace("head.aux_boxes.", "head.raw."): x
        for name, x in weights.items()
    }
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
