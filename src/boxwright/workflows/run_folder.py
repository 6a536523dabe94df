"""The folder of a run: may it be begun or gone on with, how did it begin, and what may change when it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from boxwright.checkpoints import LAST, categories_of, has_last, passport_of, read_last
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipe_text import flatten
from boxwright.compose.train_options import TrainOptions
from boxwright.files import UNFINISHED, check_folder
from boxwright.passport import Passport
from boxwright.structures import Category
from boxwright.training.checkpoint import LENGTH_OPTIONS, WHOLE_FILES, Progress, progress_of
from boxwright.training.failed_step import FAILED_STEP
from boxwright.training.folder_lock import LOCK, hold_folder
from boxwright.training.log import LOG
from boxwright.training.run import RECIPE, WEIGHTS
from boxwright.workflows.observer import Observer

Resume = bool | Literal["auto"]
"""Go on with a run, or begin one; ``auto`` goes on where there is one to go on with."""

CHANGEABLE = (
    *LENGTH_OPTIONS,
    "schedule.early_stop",
    "batches.activation_checkpointing",
    "runtime.device",
    "runtime.workers",
    "runtime.precision",
    "runtime.compile",
    "runtime.save_interval",
    "runtime.sharded",
    "runtime.processes",
)
"""Options of training that may be typed anew when a run goes on: where it is computed, and how long it is."""

LENGTHS = ("epochs", "steps", "budget")
"""Options of training that say how long: the one among the overrides replaces the one in the recipe."""

BEFORE_A_CHECKPOINT = {RECIPE, LOG, WEIGHTS, "tensorboard", FAILED_STEP, *(name + UNFINISHED for name in WHOLE_FILES)}
"""Files that a run leaves that ended before its first checkpoint: nothing that is worth keeping."""


class StoredRun(NamedTuple):
    """A run as it began; ``source`` is that of the weights that it began with, None where they were random."""

    recipe: Recipe
    categories: list[Category]
    passport: Passport | None
    source: str | None
    progress: Progress | None


@contextmanager
def hold_run(folder: Path, resume: Resume, observer: Observer) -> Iterator[bool]:
    """Hold the folder of a run, and tell whether it goes on; raises as ``resumes`` and ``hold_folder`` do."""
    resumes(folder, resume)
    with hold_folder(folder, observer.note):
        # Once more: another run may have come to its end here until now.
        yield resumes(folder, resume)


def resumes(folder: Path, resume: Resume) -> bool:
    """Tell whether a run goes on, and make sure that this, or else beginning one, is possible.

    Raises:
        FileNotFoundError: there is nothing to go on with.
        ValueError: the folder is a file, cannot be written, or has files already; or ``resume`` is something else.
    """
    if resume not in (True, False, "auto"):
        raise ValueError(f"resume is True, False or 'auto', not {resume!r}")
    goes_on = has_last(folder) if resume == "auto" else resume
    if goes_on and not has_last(folder):
        raise FileNotFoundError(
            f"{folder}: no run to resume here ({LAST} is missing); leave --resume out to begin one, or give "
            "--resume auto"
        )
    check_folder(folder)
    if not goes_on and folder.exists():
        names = {path.name for path in folder.iterdir() if not path.name.startswith(LOCK)}
        if names - BEFORE_A_CHECKPOINT:
            raise ValueError(
                f"{folder} exists already and is not overwritten: give another --out, or --resume to go on with it"
            )
    return bool(goes_on)


def read_run(folder: Path) -> StoredRun:
    """Read how a run began, of its last checkpoint."""
    stored, file = read_last(folder), folder / WEIGHTS
    source = str(json.loads(file.read_text())["source"]) if file.is_file() else None
    content = stored.content
    progress = progress_of(content) if "progress" in content else None
    return StoredRun(
        Recipe.from_dict(content["recipe"]), categories_of(content), passport_of(content), source, progress
    )


def is_finished(folder: Path) -> bool:
    """Tell whether a folder holds a run that has come to its end."""
    return has_last(folder) and progress_of(read_last(folder).content).is_finished


def go_on_with(
    stored: StoredRun, asked: Recipe, overrides: Mapping[str, Any], weights: str | Path | None, observer: Observer
) -> Recipe:
    """Return the recipe that a run goes on with: its own, and of ``CHANGEABLE`` options what was typed.

    The observer hears what is changed, and what is not although it was asked for.
    """
    train, changed = change_options(stored.recipe.train, asked.train, typed_options_of_training(overrides))
    for name in changed:
        observer.note(f"the run goes on with train.{name} {_get(train, name)}, not {_get(stored.recipe.train, name)}")
    recipe = replace(stored.recipe, train=train)
    differences = _differences(recipe.to_dict(), asked.to_dict())
    source = stored.source
    if weights is not None and (source is None or str(weights) not in (source, str(Path(source).parent))):
        differences.append(f"with weights of {source or 'its own'}, not those of {weights}")
    for difference in differences:
        observer.note(f"the run goes on as it began, {difference}")
    progress = stored.progress
    if progress is not None and progress.is_finished and not set(changed) & set(LENGTHS):
        observer.note(
            f"the run is finished, all of its {progress.steps} steps are done: to train on, give a greater length, as "
            f"--train.steps {2 * progress.steps}"
        )
    return recipe


def change_options(own: TrainOptions, asked: TrainOptions, typed: set[str]) -> tuple[TrainOptions, list[str]]:
    """Take over the options that may change and were typed; list those that have another value then."""
    changed = [name for name in CHANGEABLE if name in typed and _get(own, name) != _get(asked, name)]
    if typed & set(LENGTHS):
        # A length that was typed takes the place of any other.
        own = replace(own, steps=None, budget=None)
    for name in typed & set(CHANGEABLE):
        own = _set(own, name, _get(asked, name))
    return own, changed


def typed_options_of_training(overrides: Mapping[str, Any]) -> set[str]:
    """List the options of training among overrides by dotted name, whether by dotted key or in mappings."""
    dotted = flatten({key.replace("-", "_"): value for key, value in overrides.items()})
    return {name.removeprefix("train.") for name in dotted if name.startswith("train.")}


def _get(options: Any, name: str) -> Any:
    group, _, rest = name.partition(".")
    return _get(getattr(options, group), rest) if rest else getattr(options, group)


def _set(options: Any, name: str, value: Any) -> Any:
    group, _, rest = name.partition(".")
    return replace(options, **{group: _set(getattr(options, group), rest, value) if rest else value})


def _differences(stored: Any, asked: Any, path: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(asked, dict):
        return [
            line
            for key in {**stored, **asked}
            for line in _differences(stored.get(key), asked.get(key), f"{path}.{key}" if path else str(key))
        ]
    # "auto" is stored as what it came to.
    return [] if stored == asked or asked == "auto" else [f"with {path} {stored}, not {asked}"]
