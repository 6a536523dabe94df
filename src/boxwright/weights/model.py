"""Detectors from checkpoints of ours, or from the files of other projects."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxwright.checkpoints import FORMAT, categories_of, passport_of, read_checkpoint, tuning_of, weights_of
from boxwright.compose.detectors import build_outline, build_resolved, check_weights, load_weights
from boxwright.compose.position_tables import find_resized_tables
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.compose.undrawn import WithoutDraws, lacks_weights
from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.passport import Origin, Passport
from boxwright.score_tuning import ScoreTuning
from boxwright.structures import Category
from boxwright.version import __version__
from boxwright.weights.location import OwnCheckpoint, open_source
from boxwright.weights.overrides import list_part_options, note_resized_tables, resolve_model
from boxwright.weights.recognize import assumptions_in_errors, errors_in_one_line, recognize
from boxwright.weights.source import Source, SourceFiles
from boxwright_runtime.printable_names import one_line_errors

PRECISIONS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True, kw_only=True)
class ModelWeights:
    """A detector as files describe it.

    Args:
        recipe: every option of its parts and of its preprocessing.
        categories: label i means ``categories[i]``.
        tensors: its weights, by our names.
        origin: the files.
        passport: origin and history of the weights.
        notes: what the files do not say and was assumed, or the user should know, one line each.
        skipped: their tensors that ours has no use for, with the reason.
        tuning: tuned thresholds of its classes; None where they were not tuned.
        described: options of parts that their source has set, by dotted key: see ``needed_options``.
    """

    recipe: Recipe
    categories: Sequence[Category]
    tensors: Mapping[str, Tensor]
    origin: Origin
    passport: Passport
    notes: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    described: Sequence[str] = ()
    tuning: ScoreTuning | None = None


def load(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    image_size: int | None = None,
    precision: str | None = None,
    trusted: Collection[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Detector:
    """Load a trained detector, in evaluation mode.

    The moving average of the weights is loaded where the checkpoint has one. No code from a file is run. What a file
    does not say and was assumed is a warning.

    Args:
        source: a checkpoint, or the folder of a run: its ``best.safetensors``, or else its ``last.pt``; or a model of
            another project, see ``docs/weights.md``.
        device: cpu, cuda, cuda:1 ..., or auto for a GPU where there is one; the CPU where None.
        image_size: size of the network input in pixels, as ``input.image_size`` in a recipe; the model's where None.
            The longest side, where it is limited, changes with it.
        precision: float32, float16, bfloat16 or float64: type of the weights, and of what is computed with them.
        trusted: modules that may be imported for parts outside Boxwright; those imported already always may.
        overrides: what to change in the model's recipe, as for ``boxwright.build``:
            ``{"head.decoder.eval_layers": 3}``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a model, a damaged one, one whose weights do not fit its recipe, or an image size, a
            precision or a device that there is not.
    """
    if precision not in (None, *PRECISIONS):
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision}")
    used = choose_device(device or "cpu")
    changes = dict(overrides or {}) if image_size is None else {**(overrides or {}), "input.image_size": image_size}
    model = read_model(source, trusted=trusted, overrides=changes)
    for note in model.notes:
        warnings.warn(note, stacklevel=2)
    detector = build_model(model)
    if precision is not None:
        detector.to(getattr(torch, precision))
    return detector.to(used)


@one_line_errors()
def read_model(
    source: str | Path, *, trusted: Collection[str] = (), overrides: Mapping[str, Any] | None = None
) -> ModelWeights:
    """Read a detector from any source: a checkpoint of ours, the folder of a run, a model of another project.

    Args:
        source: as for ``load``.
        trusted: modules that may be imported for parts outside Boxwright.
        overrides: changes of the recipe, by dotted key.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a model, a damaged one, or one of no known kind.
    """
    opened = open_source(source)
    if isinstance(opened, OwnCheckpoint):
        return _read_own(opened, trusted, overrides or {})
    return convert_files(opened, overrides)


def convert_files(files: SourceFiles, overrides: Mapping[str, Any] | None = None) -> ModelWeights:
    """Bring the files of another project to our recipe and names.

    Args:
        files: read.
        overrides: changes of the recipe that the files lead to, by dotted key: what they cannot say.

    Raises:
        ValueError: no known kind, a variant that there is no counterpart of here, or tensors that do not fit.
    """
    kind, source = recognize(files)
    if not isinstance(source, Source):
        raise ValueError(f"{files.origin.source}: {source.title}, a backbone alone; give it to --backbone.weights")
    with errors_in_one_line(files, source):
        model = source.describe(files)
        with assumptions_in_errors(model.assumptions):
            stated = resolve(model.recipe, model.overrides)
            resolution = resolve_model(stated.recipe, overrides, model.assumptions)
            with WithoutDraws():
                expected = build_resolved(resolution.recipe, categories=model.categories).state_dict()
            converted = model.table.read(files.tensors, expected)
    origin = dataclasses.replace(files.origin, kind=kind)
    return ModelWeights(
        recipe=resolution.recipe,
        categories=tuple(model.categories),
        tensors=converted.tensors,
        origin=origin,
        passport=_take_passport(files, Passport(version=__version__, recipe=model.recipe, origin=origin)),
        notes=(*files.notes, *model.assumptions, *stated.notes, *resolution.notes),
        skipped=converted.skipped,
        described=list_part_options(model.overrides),
    )


def _take_passport(files: SourceFiles, new: Passport) -> Passport:
    """Take the passport that Boxwright wrote into the files of another layout; a new one where there is none."""
    if files.passport is None:
        return new
    return dataclasses.replace(files.passport, origin=files.passport.origin or new.origin)


@one_line_errors()
def build_model(model: ModelWeights) -> Detector:
    """Build the detector, in evaluation mode.

    Raises:
        ValueError: its weights do not fit its recipe.
    """
    try:
        # Before memory is taken: a recipe can say any size, and the file has what it has.
        outline = build_outline(model.recipe, categories=model.categories)
        if model.origin.kind == OURS and outline is not None:
            check_weights(outline, model.tensors)
        with WithoutDraws():
            detector = build_resolved(model.recipe, categories=model.categories, check_size=False)
        if lacks_weights(detector, model.tensors):
            detector = build_resolved(model.recipe, categories=model.categories, check_size=False)
        if model.origin.kind == OURS:
            load_weights(detector, model.tensors)
        else:
            load_weights(detector, {**detector.state_dict(), **model.tensors})
    except ValueError as error:
        raise ValueError(f"{model.origin.source}: {error}") from error
    detector.passport, detector.tuning = model.passport, model.tuning
    return detector.eval()


OURS = FORMAT
"""Kind of origin of checkpoints of ours."""


def _read_own(own: OwnCheckpoint, trusted: Collection[str], overrides: Mapping[str, Any]) -> ModelWeights:
    content = read_checkpoint(own.path)
    try:
        # The recipe of the file first: what it names is imported only where it is trusted.
        stated = Recipe.from_dict(content["recipe"], trusted=trusted)
        recipe, notes = resolve_model(stated, overrides)
        passport = own.complete(passport_of(content))
        categories, tensors = categories_of(content), weights_of(content)
        notes = (*notes, *_note_tables(stated, recipe, categories, tensors))
    except ValueError as error:
        raise ValueError(f"{own.path}: {error}") from error
    return ModelWeights(
        recipe=recipe,
        categories=categories,
        tensors=tensors,
        origin=own.origin,
        passport=passport,
        notes=notes,
        tuning=tuning_of(content),
    )


def _note_tables(
    stated: Recipe, recipe: Recipe, categories: Sequence[Category], tensors: Mapping[str, Tensor]
) -> list[str]:
    """Say that tables of positions are interpolated, where a change of the recipe leads to it."""
    if stated.backbone == recipe.backbone:
        return []
    outline = build_outline(recipe, categories=categories)
    resized = [] if outline is None else find_resized_tables(outline, tensors)
    return note_resized_tables(resized, stated.backbone, recipe.backbone)
