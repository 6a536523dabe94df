"""The one door: a detector from a checkpoint of ours, or from the files of another project."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from boxwright.checkpoints import categories_of, find_checkpoint, read_checkpoint, weights_of
from boxwright.compose.detectors import build_resolved, load_weights
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.detector import Detector
from boxwright.passport import Origin
from boxwright.structures import Category
from boxwright.weights.recognize import recognize
from boxwright.weights.source import SourceFiles
from boxwright.weights.table import TableError


@dataclass(frozen=True, kw_only=True)
class ModelWeights:
    """A detector as files describe it.

    Args:
        recipe: every option of its parts and of its preprocessing.
        categories: label i means ``categories[i]``.
        tensors: its weights, by our names.
        origin: the files.
        notes: what the files do not say and was assumed, one line each.
        skipped: their tensors that ours has no use for, with the reason.
    """

    recipe: Recipe
    categories: Sequence[Category]
    tensors: Mapping[str, Tensor]
    origin: Origin
    notes: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)


def convert_files(files: SourceFiles, overrides: Mapping[str, Any] | None = None) -> ModelWeights:
    """Bring the files of another project to our recipe and names.

    Args:
        files: read.
        overrides: changes of the recipe that the files lead to, by dotted key: what they cannot say.

    Raises:
        ValueError: no known kind, a variant that there is no counterpart of here, or tensors that do not fit.
    """
    kind, source = recognize(files)
    try:
        model = source.describe(files)
        resolution = resolve(model.recipe, {**model.overrides, **(overrides or {})})
        expected = build_resolved(resolution.recipe, categories=model.categories).state_dict()
        converted = model.table.read(files.tensors, expected)
    except TableError as error:
        raise ValueError(f"{files.origin.source}: recognized as {source.title}, but {error}") from error
    except ValueError as error:
        raise ValueError(f"{files.origin.source}: {error}") from error
    return ModelWeights(
        recipe=resolution.recipe,
        categories=tuple(model.categories),
        tensors=converted.tensors,
        origin=dataclasses.replace(files.origin, kind=kind),
        notes=(*model.assumptions, *resolution.notes),
        skipped=converted.skipped,
    )


def read_own(path: str | Path, *, trusted: Collection[str] = ()) -> ModelWeights:
    """Read a checkpoint of ours, or the folder of a run.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint, or a damaged one.
    """
    path = find_checkpoint(path)
    content = read_checkpoint(path)
    try:
        recipe = Recipe.from_dict(content["recipe"], trusted=trusted)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    origin = Origin(source=str(path), kind="boxwright")
    return ModelWeights(recipe=recipe, categories=categories_of(content), tensors=weights_of(content), origin=origin)


def build_model(model: ModelWeights) -> Detector:
    """Build the detector, in evaluation mode."""
    detector = build_resolved(model.recipe, categories=model.categories)
    load_weights(detector, {**detector.state_dict(), **model.tensors})
    return detector.eval()


def read_model(
    source: str | Path, *, trusted: Collection[str] = (), overrides: Mapping[str, Any] | None = None
) -> ModelWeights:
    """Read a checkpoint of ours (placeholder until the door is there)."""
    del overrides
    return read_own(source, trusted=trusted)
