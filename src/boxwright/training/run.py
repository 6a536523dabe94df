"""The parts of a training run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from boxwright.compose.recipe import Recipe
from boxwright.compose.train_options import TrainOptions
from boxwright.data.records import DetectionData
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.transform import Transform
from boxwright.detector import Detector
from boxwright.training.callbacks import Callback
from boxwright.training.distillation import Teacher

RECIPE = "recipe.yaml"
"""The resolved recipe in the folder of a run, for people to read; checkpoints have their own copy."""

WEIGHTS = "initial_weights.json"
"""Likewise, of a run that began with weights of another model: their source, and the names of all tensors."""


@runtime_checkable
class Evaluate(Protocol):
    """Measures a detector on the validation split."""

    num_images: int

    def __call__(self, detector: Detector, limit: int | None = None) -> dict[str, Any]:
        """Return metrics by name, as ``measures.summary_metrics`` reads them; of at most ``limit`` images."""
        ...


def say_nothing(line: str) -> None:
    """Leave a note unsaid, where nobody listens."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that a training run consists of.

    Args:
        detector: to be trained; fresh, or with the weights to start from. Its passport is that of the run.
        recipe: the resolved recipe that it was built from.
        data: images to train on, with their objects.
        augmentation: random changes of the images.
        folder: of the recipe, checkpoints and the log; made when training begins.
        evaluate: measures it on the validation split; None where there is none.
        callbacks: hear of steps, evaluations and checkpoints.
        image_transforms: own transforms of whole images, in this order, before ``augmentation``.
        input_transforms: own transforms of network inputs, in this order, after it.
        console: shows progress; silent where None.
        note: hears what the user should know: a damaged file, evaluations of equal value.
        initial_weights: source and names of the weights that it begins with, for ``initial_weights.json``; None where
            they are random.
        teacher: of the head's distillation, which ``run_training`` reads; None without.
        began: ``time.monotonic()`` when the user's budget began to run; now by default.
    """

    detector: Detector
    recipe: Recipe
    data: DetectionData
    augmentation: Augmentation
    folder: Path
    evaluate: Evaluate | None = None
    callbacks: Sequence[Callback] = ()
    image_transforms: Sequence[Transform] = ()
    input_transforms: Sequence[Transform] = ()
    console: Console | None = None
    note: Callable[[str], None] = say_nothing
    initial_weights: dict[str, Any] | None = None
    teacher: Teacher | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def options(self) -> TrainOptions:
        """Options of training, as the recipe has them."""
        return self.recipe.train
