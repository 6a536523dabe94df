"""Size and cost of a detector, part by part; and of one with weights, where they come from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import names_model, resolve
from boxwright.compose.undrawn import WithoutDraws
from boxwright.compose.values import plain
from boxwright.contracts import CountedAsPublished
from boxwright.detector import Detector
from boxwright.passport import Passport
from boxwright.score_tuning import ScoreTuning
from boxwright.structures import Category
from boxwright.weights.model import ModelWeights, build_model, read_model
from boxwright.weights.overrides import needed_options
from boxwright.workflows.detector_cost import NUM_CLASSES, DetectorCost, PartCost
from boxwright.workflows.exported_facts import FileFacts, read_file_facts
from boxwright.workflows.observer import Observer
from boxwright.workflows.operation_counter import OperationCounter
from boxwright.workflows.operation_counts import OPERATIONS
from boxwright.workflows.passports import identify
from boxwright_runtime.exported_file import is_exported_name
from boxwright_runtime.input_format import InputFormat

Count = Literal["products", "operations"]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts of a model that has weights.

    Args:
        categories: label i means ``categories[i]``.
        input_format: preprocessing of images.
        options: of the parts that the weights need, by dotted name: those that their source has set, and all that are
            not the parts' defaults.
        passport: origin and history of the weights.
        notes: what the source does not say and was assumed, one line each.
        skipped: tensors of the source that ours has no use for, with the reason.
        tuning: tuned thresholds of the classes; None where they were not tuned.
    """

    categories: tuple[Category, ...]
    input_format: InputFormat
    options: Mapping[str, Any]
    passport: Passport
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    tuning: ScoreTuning | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, for ``json.dump``."""
        return {
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
            "input": plain(self.input_format),
            "options": dict(self.options),
            "passport": self.passport.to_dict(),
            "notes": list(self.notes),
            "skipped": dict(self.skipped),
            "tuning": None if self.tuning is None else self.tuning.to_dict(),
        }


def info(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    num_classes: int | None = None,
    count: Count = "products",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> DetectorCost | FileFacts:
    """Count parameters, and multiply-adds for one image in evaluation mode; of a model, tell also where it comes from.

    Args:
        recipe: name of a recipe, path of a YAML file, or a recipe; or a model: any source that ``boxwright.load``
            takes; or an exported file, of which the result is what its metadata say.
        num_classes: of a recipe; 80 where None. A model has its own.
        count: ``products`` of convolutions, linear layers and attention, as ``torch.utils.flop_counter`` counts them;
            ``operations`` are also sums, biases, swish, means and pooling, as TensorFlow's profiler counts.
        trusted: modules that may be imported for parts outside Boxwright that a model names.
        observer: hears what the user should know of the recipe.
        overrides: changes of the recipe, as for ``boxwright.build``.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: an unknown recipe, part or option, or a value that a part refuses; or not a model.
    """
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes is at least 1, not {num_classes}")
    observer = observer or Observer()
    counted = OPERATIONS if count == "operations" else None
    if isinstance(recipe, str | Path) and is_exported_name(recipe):
        if num_classes is not None or overrides:
            raise ValueError(f"{recipe} is an exported file, which has classes and options of its own")
        return read_file_facts(recipe)
    if isinstance(recipe, str | Path) and names_model(recipe):
        if num_classes is not None:
            raise ValueError(f"{recipe}: num_classes is for recipes; this model has classes of its own")
        model = read_model(recipe, trusted=trusted, overrides=overrides)
        for note in model.notes:
            observer.note(note)
        cost = measure_detector(build_model(model), counted)
        return replace(cost, model=_list_facts(model))
    resolved, notes = resolve(recipe, overrides)
    for note in notes:
        observer.note(note)
    return measure_recipe(resolved, num_classes or NUM_CLASSES, counted)


def _list_facts(model: ModelWeights) -> ModelFacts:
    return ModelFacts(
        categories=tuple(model.categories),
        input_format=model.recipe.input,
        options=needed_options(model.recipe, model.described),
        passport=identify(model),
        notes=tuple(model.notes),
        skipped=model.skipped,
        tuning=model.tuning,
    )


def measure_recipe(recipe: Recipe, num_classes: int, counted: Mapping[Any, Any] | None = None) -> DetectorCost:
    """Count for a resolved recipe.

    Args:
        recipe: with a name and options for every part.
        num_classes: number of classes.
        counted: other counts per operator, as ``OPERATIONS``.
    """
    categories = [Category(i, f"class_{i}") for i in range(num_classes)]
    with WithoutDraws():
        detector = build_resolved(recipe, categories=categories).eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()  # Nothing was drawn, and what is in the memory may not be finite.
    return measure_detector(detector, counted)


def measure_detector(detector: Detector, counted: Mapping[Any, Any] | None = None) -> DetectorCost:
    """Count for a detector in evaluation mode, which counts as published from then on.

    GMAC are half of what ``torch.utils.flop_counter`` counts. Masks of boxes are not counted: there are as many
    as objects.

    Args:
        detector: built from a recipe.
        counted: other counts per operator, as ``OPERATIONS``.
    """
    size, recipe = detector.input_format.image_size, detector.recipe
    assert isinstance(recipe, Recipe)
    deployed = detector.fold()
    if deployed.mask_region == "box":
        _count_as_published(deployed.head)
    deployed_operations, _ = _count_operations(deployed, size, counted)
    for module in detector.modules():
        _count_as_published(module)
    total, by_module = _count_operations(detector, size, counted)
    parts = tuple(
        PartCost(slot, name, *_num_params(part), by_module.get(path, 0) / 2e9)
        for slot, name, path, part in _list_parts(detector, recipe)
    )
    return DetectorCost(*_num_params(detector), total / 2e9, deployed_operations / 2e9, parts, size)


def _count_as_published(module: nn.Module) -> None:
    if isinstance(module, CountedAsPublished):
        module.count_as_published = True


def _count_operations(detector: Detector, size: int, counted: Mapping[Any, Any] | None) -> tuple[int, dict[str, int]]:
    """Floating-point operations in all, and by the path of each module; the head's are also those of ``decode``."""
    forward, decode = OperationCounter(counted), OperationCounter(counted)
    with forward.counting():
        output = detector(torch.zeros(1, 3, size, size))
    with decode.counting():
        detector.decode(output)
    by_module = {path.partition(".")[2]: count for path, count in forward.by_module.items()}
    by_module["head"] = by_module.get("head", 0) + decode.total
    return forward.total + decode.total, by_module


def _list_parts(detector: Detector, recipe: Recipe) -> list[tuple[str, str, str, nn.Module]]:
    """Slot, name, path in the detector and module of every part, in the order of execution."""
    paths = ["backbone", *(f"necks.{i}" for i in range(len(recipe.necks))), "head"]
    return [
        (slot, part.name, path, detector.get_submodule(path))
        for path, (slot, part) in zip(paths, recipe.parts().items(), strict=True)
    ]


def _num_params(module: nn.Module) -> tuple[int, int]:
    """Number of parameters, and of those that are trained."""
    params = list(module.parameters())
    return sum(param.numel() for param in params), sum(param.numel() for param in params if param.requires_grad)
