"""Checkpoints of training: written while it runs, and read where it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import torch

from boxwright.checkpoints import LAST, pack_checkpoint, passport_of, read_checkpoint, write_checkpoint
from boxwright.compose.recipe import Recipe
from boxwright.detector import Detector
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer_state import load_optimizer_state


@dataclass
class Progress:
    """Progress of a run. Together with the weights and the optimizer, all that the next step depends on.

    Args:
        step: optimizer steps done.
        steps: optimizer steps of the whole run.
        evaluations: evaluations of the whole run.
        best: the best value of the measure on the validation split so far; negative where there was none.
        measure: what is measured there: AP, mask AP or top-1, after the detector's task.
        seconds: time spent so far, over all sessions of the run.
    """

    step: int
    steps: int
    evaluations: int
    best: float = -1.0
    measure: str = "AP"
    seconds: float = 0.0


def save_progress(
    path: Path,
    detector: Detector,
    average: MovingAverage | None,
    recipe: Recipe,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    progress: Progress,
) -> None:
    """Write a checkpoint; whatever stood there stays whole until the new one is complete on disk.

    Without ``optimizer`` it is one to predict with; training cannot go on from it.
    """
    state = pack_checkpoint(recipe.to_dict(), detector.categories, detector.state_dict(), detector.passport)
    if average is not None:
        state["ema"] = average.model.state_dict()
    state["progress"] = vars(progress)
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    else:
        # The average is what is used; the weights beside it would double the file.
        state["model"] = state.pop("ema", state["model"])
    write_checkpoint(path, state)


def resume_progress(
    path: Path,
    detector: Detector,
    average: MovingAverage | None,
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """Load a run's last checkpoint into its parts.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not one that training can go on from.
    """
    state = read_checkpoint(path)
    if "optimizer" not in state or "progress" not in state:
        raise ValueError(f"{path}: only holds weights to predict with; resume from the run's {LAST}")
    if (average is None) != ("ema" not in state):
        raise ValueError(
            f"{path}: train.ema_decay has been switched since; a run is resumed with the options it began with"
        )
    try:
        detector.load_state_dict(state["model"])
        load_optimizer_state(optimizer, state["optimizer"])
        if average is not None:
            average.load(state["ema"])
        detector.passport = passport_of(state) or detector.passport
        return Progress(**state["progress"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        # Of torch's several lines the last one names a tensor, or many.
        reason = shorten(str(error).splitlines()[-1], 160, placeholder=" ...")
        raise ValueError(f"{path}: does not fit the run's recipe: {reason}") from error
