"""Checkpoints of training: written while it runs, and read where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import torch

from boxwright.checkpoints import (
    BEST,
    EARLIER_BEST,
    LAST,
    PREVIOUS,
    LastCheckpoint,
    pack_checkpoint,
    passport_of,
    read_checkpoint,
    read_last,
    weights_of,
    write_checkpoint,
)
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipe_text import flatten
from boxwright.detector import Detector
from boxwright.files import remove_unfinished
from boxwright.passport import Passport
from boxwright.training.log import LOG
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer_state import load_optimizer_state
from boxwright.training.run import RECIPE, WEIGHTS
from boxwright.training.sharding import gather_tensors, is_sharded, load_whole_weights

LENGTH_OPTIONS = ("epochs", "steps", "budget", "schedule.evaluations")
"""Options of training that say how long it is: a run may go on with others."""

WHOLE_FILES = (LAST, BEST, LOG, RECIPE, WEIGHTS)
"""Files of a run that are replaced whole: a process that is killed leaves one of them unfinished, beside the whole."""


@dataclass
class Progress:
    """Progress of a run. Together with the weights and the optimizer, all that the next step depends on.

    Args:
        step: optimizer steps done.
        steps: optimizer steps of the whole run, as far as is known now: where it has a budget of time, they change.
        evaluations: evaluations of the whole run.
        best: the best value of the measure on the validation split so far; negative where there was none.
        measure: what is measured there: AP, mask AP or top-1, after the detector's task.
        seconds: time spent so far, over all sessions of the run.
        length: steps that the schedule is laid over: those of the first plan.
        planned_at: step at which ``steps`` was last changed.
        planned_position: position in the schedule there.
        evaluation_seconds: time of the last evaluation; 0 before any.
        evaluation_due: the evaluation of this step is still to be made.
        best_step: the step of the best evaluation so far; 0 where there was none.
        ties: evaluations whose value was the best one so far once more.
        failed_steps: steps that were left out because their numbers were not finite; see ``recovery``.
        evaluations_without_rise: in a row, up to now; see ``early_stop``.
        threads: that a deterministic run computes with; 0 where it is none.
        compiled: "on" or "off" where ``train.runtime.compile`` is auto and has decided, else empty.
    """

    step: int
    steps: int
    evaluations: int
    best: float = -1.0
    measure: str = "AP"
    seconds: float = 0.0
    length: int = 0
    planned_at: int = 0
    planned_position: int | float = 0.0
    evaluation_seconds: float = 0.0
    evaluation_due: bool = False
    best_step: int = 0
    ties: int = 0
    failed_steps: int = 0
    evaluations_without_rise: int = 0
    threads: int = 0
    compiled: str = ""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            default = type(self).__dataclass_fields__[name].default
            kind = (int, float) if isinstance(default, float) else str if isinstance(default, str) else int
            is_negative = isinstance(value, int) and value < 0 and kind is int
            if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool) or is_negative:
                raise TypeError(f"progress.{name} is not {value!r}")
        self.length = self.length or self.steps

    @property
    def is_finished(self) -> bool:
        """Tell whether all steps are done, and the last one is evaluated."""
        return self.step == self.steps and not self.evaluation_due

    def position(self, step: int) -> int | float:
        """Return where in the schedule the run is after ``step`` steps; just ``step`` where its length is fixed."""
        if step >= self.steps:
            return self.length
        if self.steps == self.length and self.planned_at == 0:
            return step
        fraction = (step - self.planned_at) / (self.steps - self.planned_at)
        return self.planned_position + (self.length - self.planned_position) * fraction

    def plan_anew(self, steps_left: int) -> None:
        """Let the run end after so many more steps, and go through what is left of the schedule in them."""
        position = self.position(self.step)
        self.planned_at, self.planned_position, self.steps = self.step, position, self.step + steps_left

    def change_length(self, steps: int, evaluations: int) -> None:
        """Lay the plan of a run that goes on with another length, as if it had begun with it.

        Raises:
            ValueError: more steps are done already.
        """
        if steps < self.step:
            raise ValueError(
                f"the run has done {self.step} steps already, and is to have {steps}: give a greater length, or none "
                "to keep its own"
            )
        self.steps = self.length = steps
        self.evaluations, self.planned_at, self.planned_position = evaluations, 0, 0.0


class RunCheckpoints:
    """The checkpoints in the folder of a run: the best one, the last one and the one before it.

    At every moment, also if the process is killed, there is a whole one to go on from once there was any, and the best
    weights are in ``best.safetensors`` or in the checkpoint that training goes on from.

    Args:
        folder: of the run.
        recipe: that it is trained with, which is stored.
        detector: being trained.
        average: moving average of its weights, where there is one.
        optimizer: that trains it.
        writes: this process writes; of several the first one does.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        detector: Detector,
        average: MovingAverage | None,
        optimizer: torch.optim.Optimizer,
        *,
        writes: bool = True,
    ) -> None:
        self.folder, self.recipe = folder, recipe
        self.detector, self.average, self.optimizer = detector, average, optimizer
        self.writes = writes
        self.has_new_length = False
        self._has_last = self._keeps_previous = False

    def begin(self) -> None:
        """Remove what an earlier run here has left that came to nothing."""
        if self.writes:
            remove_unfinished(self.folder, WHOLE_FILES)

    def resume(self, note: Callable[[str], None]) -> Progress:
        """Load the last checkpoint into the parts of the run; the one before it where the last is damaged.

        ``has_new_length`` then tells whether the recipe has another length than the one in the checkpoint.

        Args:
            note: hears of files that are damaged, and what is done about it.

        Raises:
            FileNotFoundError: there is none.
            ValueError: none is whole, or it is not one that training can go on from.
        """
        last = read_last(self.folder, note if self.writes else None)
        progress = load_progress(last, self.detector, self.average, self.optimizer)
        stored, own = (_length(recipe) for recipe in (last.content["recipe"], self.recipe.to_dict()))
        self.has_new_length = stored != own
        # A damaged last one must not take the place of the whole one before it.
        self._has_last, self._keeps_previous = True, last.path.name == PREVIOUS
        if self.writes:
            self.begin()
            self._reconcile_best(progress, last, note)
        return progress

    def save(self, progress: Progress, *, best: bool) -> list[Path]:
        """Write the last checkpoint, and the best one where the weights are the best; return the files, in order.

        The best one is written first: of a process that is killed between the two, the older last one makes the same
        evaluation again. A last one that knew of it would never write the best. Only where there is no last one yet,
        it comes first, and the best is restored from it. Where the detector is sharded, all processes have to call it.
        """
        if not self.writes and not is_sharded(self.detector):
            return []
        content = self._content(progress)
        if not self.writes:
            return []
        names = [LAST] if not best else [BEST, LAST] if self._has_last else [LAST, BEST]
        for name in names:
            if name == BEST:
                write_checkpoint(self.folder / BEST, to_predict_with(content))
                continue
            write_checkpoint(self.folder / LAST, content, earlier=None if self._keeps_previous else PREVIOUS)
            self._has_last, self._keeps_previous = True, False
        return [self.folder / name for name in names]

    def _content(self, progress: Progress) -> dict[str, Any]:
        detector = self.detector
        content = pack_checkpoint(self.recipe.to_dict(), detector.categories, detector.state_dict(), detector.passport)
        if self.average is not None:
            content["ema"] = self.average.model.state_dict()
        content |= {"progress": dict(vars(progress)), "optimizer": self.optimizer.state_dict()}
        # A file has whole tensors, so that any number of processes can go on from it.
        return cast(dict[str, Any], gather_tensors(content, keep=self.writes)) if is_sharded(detector) else content

    def _reconcile_best(self, progress: Progress, last: LastCheckpoint, note: Callable[[str], None]) -> None:
        """Bring the best checkpoint and what the last one knows of it together."""
        path = next((self.folder / name for name in (BEST, EARLIER_BEST) if (self.folder / name).is_file()), None)
        stored = None if path is None else _read_progress(path)
        if stored is not None and (stored.step >= progress.best_step or progress.best_step != progress.step):
            if stored.step != progress.best_step:
                # It is of an evaluation that will be made again, if the run goes on as before; else it may stay best.
                # Those of earlier releases do not know their step.
                progress.best, progress.measure, progress.ties = stored.best, stored.measure, stored.ties
                progress.best_step = stored.step
                progress.evaluations_without_rise = stored.evaluations_without_rise
            return
        state = "is missing" if path is None else "is damaged" if not stored else "is of an earlier step"
        for one in (last, *self._read_previous(last)):
            if progress.best_step and one.content["progress"]["step"] == progress.best_step:
                write_checkpoint(self.folder / BEST, to_predict_with(one.content))
                note(f"{self.folder / BEST} {state}: it is restored from {one.path.name}")
                return
        if progress.best_step or path is not None:
            note(f"{self.folder / BEST} {state}: the next evaluation counts as the best")
        progress.best, progress.best_step = -1.0, 0

    def _read_previous(self, last: LastCheckpoint) -> list[LastCheckpoint]:
        path = self.folder / PREVIOUS
        try:
            return [] if last.path == path else [LastCheckpoint(path, read_checkpoint(path))]
        except (OSError, ValueError):
            return []


def to_predict_with(content: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a checkpoint what only training needs; the average stands for the weights where there is one."""
    kept = {name: value for name, value in content.items() if name not in ("ema", "optimizer")}
    return {**kept, "model": weights_of(content)}


def load_progress(
    last: LastCheckpoint,
    detector: Detector,
    average: MovingAverage | None,
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """Load a checkpoint into the parts of a run.

    Raises:
        ValueError: it is not one that training can go on from.
    """
    path, state = last
    if "optimizer" not in state or "progress" not in state:
        raise ValueError(f"{path}: only holds weights to predict with; resume from the run's {LAST}")
    if (average is None) != ("ema" not in state):
        raise ValueError(
            f"{path}: train.ema_decay has been switched since; a run is resumed with the options it began with"
        )
    try:
        load_whole_weights(detector, state["model"])
        load_optimizer_state(optimizer, state["optimizer"])
        if average is not None:
            average.load(state["ema"])
        detector.passport = _go_on_with(passport_of(state), detector.passport)
        return Progress(**state["progress"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        # Of torch's several lines the last one names a tensor, or many.
        reason = shorten(str(error).splitlines()[-1], 160, placeholder=" ...")
        raise ValueError(f"{path}: does not fit the run's recipe: {reason}") from error


def _go_on_with(stored: Passport | None, own: Passport | None) -> Passport | None:
    """Take the passport of a checkpoint; what is measured on the way may be other images than before."""
    if stored is None or own is None or own.validation is None:
        return stored or own
    return replace(stored, validation=own.validation)


def _length(recipe: Mapping[str, Any]) -> list[Any]:
    options = flatten(recipe["train"])
    return [options.get(name) for name in LENGTH_OPTIONS]


def progress_of(content: Mapping[str, Any]) -> Progress:
    """Read how far the run of a checkpoint has come.

    Raises:
        ValueError: it does not say.
    """
    try:
        return Progress(**content["progress"])
    except (KeyError, TypeError) as error:
        raise ValueError("a damaged checkpoint, without the progress of its run") from error


def _read_progress(path: Path) -> Progress | None:
    try:
        return progress_of(read_checkpoint(path))
    except (OSError, ValueError):
        return None
