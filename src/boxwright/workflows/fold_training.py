"""Training of a model's recipe again on a part of its images, and predictions of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipe_text import typed_options
from boxwright.compose.recipes import resolve
from boxwright.compose.train_options import TrainOptions, seconds
from boxwright.contracts import LimitedHead
from boxwright.data.image_check import ProgressCallback
from boxwright.data.masks import check_masks
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.passport import Passport, TrainingData
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from boxwright.weights.model import OURS, ModelWeights, load
from boxwright.workflows.beginning import Beginning
from boxwright.workflows.observer import Observer
from boxwright.workflows.validation import Validation
from boxwright_runtime.detections import Detections

_LENGTHS = ("epochs", "steps", "budget")
"""Options of training that say how long."""


@dataclass(frozen=True, kw_only=True)
class FoldTraining:
    """Training that is the same for the models of all folds.

    Args:
        recipe: of the model, its length that of one fold.
        beginning: the weights that training begins with.
    """

    recipe: Recipe
    beginning: Beginning


def prepare_training(
    model: ModelWeights, data: TrainingData, folds: int, overrides: Mapping[str, Any], observer: Observer
) -> FoldTraining:
    """Take from a model how it was trained, and with which weights that began.

    A model of another project, or one that was trained on other data, is itself what training begins with. One that
    was trained on this data is not: its weights know the errors.

    Args:
        model: read.
        data: the split that is dealt into folds.
        folds: their number.
        overrides: changes of the recipe.
        observer: hears what training begins with.

    Raises:
        ValueError: an override does not fit.
    """
    recipe, notes = resolve_fold_training(model, folds, overrides)
    for note in notes:
        observer.note(note)
    train = recipe.train
    beginning, origin = _find_beginning(model, data, observer)
    length = f"{train.steps} steps" if train.steps else train.budget or f"{train.epochs} epochs"
    observer.announce(f"{folds} folds, {length} of training for each, from {origin}")
    return FoldTraining(recipe=recipe, beginning=beginning)


def resolve_fold_training(
    model: ModelWeights, folds: int, overrides: Mapping[str, Any]
) -> tuple[Recipe, tuple[str, ...]]:
    """Make the recipe of a fold from that of a model, and notes on it.

    Args:
        model: read.
        folds: their number.
        overrides: changes of the recipe; a length of training among them is that of a fold.

    Raises:
        ValueError: an override does not fit.
    """
    typed = typed_options(overrides, "train")
    is_length_typed = bool(typed & set(_LENGTHS))
    emptied = {f"train.{name}": None for name in _LENGTHS[1:] if name not in typed} if is_length_typed else {}
    recipe, notes = resolve(model.recipe, {**emptied, **overrides})
    train = recipe.train if is_length_typed else _shorten(recipe.train, (folds - 1) / folds)
    # Nothing is measured on the way: the last evaluation is where the weights are saved.
    train = replace(train, schedule=replace(train.schedule, evaluations=1))
    return replace(recipe, train=train), tuple(notes)


def train_on(data: DetectionData, training: FoldTraining, folder: Path, progress: ProgressCallback) -> Detector:
    """Train a model.

    Args:
        data: the images to train on.
        training: recipe and initial weights.
        folder: an empty one for the files of the run.
        progress: called as ``progress(done, total)``, in steps.

    Raises:
        ValueError: training has diverged, or the data lacks masks.
        Interrupted: Ctrl-C was pressed.
    """
    recipe = training.recipe
    torch.manual_seed(recipe.train.runtime.seed)
    detector = build_resolved(recipe, categories=data.categories)
    if detector.needs_masks:
        check_masks(data)
    training.beginning.load(detector, Observer())
    detector.freeze(recipe.train.freeze)
    run = Run(
        detector=detector,
        recipe=recipe,
        data=data,
        augmentation=recipe.augment,
        folder=folder,
        callbacks=(_StepProgress(progress),),
    )
    run_training(run)
    device = next(detector.parameters()).device
    return load(folder, device=device)


def predict_images(
    detector: Detector, data: DetectionData, max_detections: int, progress: ProgressCallback
) -> dict[int, Detections]:
    """Predict images, by image id.

    Args:
        detector: its limits are raised in place.
        data: the images.
        max_detections: so many objects are looked for in an image.
        progress: called as ``progress(done, total)``, in images.
    """
    if isinstance(detector.head, LimitedHead):
        detector.head.raise_limits(max_detections)
    return Validation(data, max_detections=max_detections).measure(detector, progress=progress).detections


def _shorten(train: TrainOptions, fraction: float) -> TrainOptions:
    """The length for a fraction of the images; epochs have fewer steps of themselves."""
    if train.budget is not None:
        return replace(train, budget=f"{fraction * seconds(train.budget):.1f}s")
    if train.steps is not None:
        return replace(train, steps=max(1, round(fraction * train.steps)))
    return train


def _find_beginning(model: ModelWeights, data: TrainingData, observer: Observer) -> tuple[Beginning, str]:
    """The weights that training began with, and a name for them.

    Where their file is gone, the backbone of the model itself takes their place: it has seen the images, but no class
    or box is in it.
    """
    passport, source = model.passport, model.origin.source
    if not has_seen(model, data):
        return Beginning(detector=model), source
    while passport.parent is not None and _is_same(passport.parent.data, data):
        passport = passport.parent
    before = passport.parent or passport.backbone
    if before is None:
        return Beginning(), "random weights"
    first = source if before.origin is None else before.origin.source
    try:
        if passport.parent is not None and before.origin is not None:
            return Beginning.read(first, None), first
        return Beginning.read(None, first), f"the backbone of {first}"
    except (OSError, ValueError) as error:
        observer.note(
            f"the weights that training began with cannot be read ({error}); training begins with the backbone of "
            f"{source}"
        )
        return Beginning.read(None, source), f"the backbone of {source}"


def has_seen(model: ModelWeights, data: TrainingData) -> bool:
    """Tell whether a model was trained on a data set; also where its annotations were others then, or nothing is known.

    Models of another project were trained elsewhere.
    """
    if model.origin.kind != OURS:
        return False
    if model.passport.data is None and (model.passport.origin is None or model.passport.origin.kind == OURS):
        return True
    passport: Passport | None = model.passport
    while passport is not None:
        if _is_same(passport.data, data):
            return True
        passport = passport.parent
    return False


def _is_same(before: TrainingData | None, data: TrainingData) -> bool:
    if before is None:
        return False
    return before.name == data.name or before.has_same_content(data) is True


class _StepProgress(Callback):
    def __init__(self, progress: ProgressCallback) -> None:
        self._progress = progress

    def on_step(self, event: StepEvent) -> None:
        self._progress(event.step, event.steps)
