"""Training: a recipe and a data set to the folder of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from boxwright.checkpoints import BEST, LAST, PREVIOUS, find_checkpoint, has_last
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipe_text import flatten, typed_options
from boxwright.compose.recipes import resolve
from boxwright.contracts import FrozenStatistics
from boxwright.cpu_quota import describe_quota
from boxwright.data.masks import check_masks
from boxwright.data.records import DetectionData, PseudoPart, max_objects
from boxwright.data.size_survey import thin_out
from boxwright.data.transforms.adapters import as_transform
from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.evaluation.limits import coco_limit, head_limits, note_nothing_to_count
from boxwright.training.callbacks import Callback, check_callbacks
from boxwright.training.checkpoint import Progress
from boxwright.training.loop import run_training
from boxwright.training.machines import first_of_machine_first, is_restarted, share_file
from boxwright.training.run import WEIGHTS, Run
from boxwright.training.spawn import start_processes
from boxwright.weights.model import load
from boxwright.workflows.beginning import Beginning, resolve_beginning
from boxwright.workflows.check import brief_check
from boxwright.workflows.fitting import fit_batch, is_parts_typed
from boxwright.workflows.observer import Observer, observer_of_first
from boxwright.workflows.passports import check_same_data, describe_data, note_other_validation, training_passport
from boxwright.workflows.reading import Data, data_name, has_split, read_split
from boxwright.workflows.run_folder import LENGTHS, Resume, StoredRun, go_on_with, hold_run, read_run
from boxwright.workflows.validation import Validation


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Args:
        folder: of the run, with ``best.safetensors``, ``last.pt``, ``recipe.yaml`` and ``log.jsonl``.
        steps: optimizer steps done.
        seconds: time of training, over all sessions of the run.
        measure: name of the number that tells which weights are best: AP, mask AP or top-1.
        best: its best value on the validation split; None where there was nothing to find.
        is_measured: there was a validation split.
    """

    folder: Path
    steps: int
    seconds: float
    measure: str
    best: float | None
    is_measured: bool

    @classmethod
    def of(cls, run: Run, progress: Progress) -> TrainResult:
        """Take from a run that has ended what its user asks for."""
        best = progress.best if progress.best >= 0 else None
        return cls(run.folder, progress.step, progress.seconds, progress.measure, best, run.evaluate is not None)

    @property
    def checkpoint(self) -> Path:
        """The best weights; the last ones where nothing was measured."""
        return find_checkpoint(self.folder)

    def load(self) -> Detector:
        """Load the detector with the best weights."""
        return load(self.checkpoint)


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    data: Data,
    *,
    out: str | Path | None = None,
    resume: Resume = False,
    weights: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    transforms: Sequence[Any] = (),
    input_transforms: Sequence[Any] = (),
    observer: Observer | None = None,
    began: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a detector, or a classifier, on a data set.

    The split ``train`` is trained on, and ``val``, where there is one, is measured on the way.

    Args:
        recipe: name of a recipe, path of a YAML file, or a recipe.
        data: a folder, ``DataFiles``, an ``ImageDataset``, or ``{"train": ImageDataset, "val": ImageDataset}``.
        out: folder of the run; ``runs/RECIPE-DATA`` where None.
        resume: go on from the run's last checkpoint, as the run began; but device, workers, processes, precision,
            sharding, activation checkpointing and length are those of the overrides. With ``"auto"``, begin a run where
            there is none to go on with.
        weights: detector to begin with: a run or checkpoint of ours, or a source of another project. Parts that the
            recipe names too have its options, and images its preprocessing, unless overridden; layers with rows of
            classes keep those of classes that have the same name.
        backbone_weights: run, checkpoint or source whose backbone to begin with.
        callbacks: hear of steps, evaluations and checkpoints, and may end training, as ``EarlyStopping`` does.
        transforms: own random changes of whole training images, before the recipe's augmentation: transforms of
            torchvision v2, compositions of albumentations, or functions, see ``as_transform``.
        input_transforms: own random changes of network inputs, after it, likewise.
        observer: hears notes and progress; notes become warnings where None.
        began: ``time.monotonic()`` when a budget of time began to run; now where None.
        overrides: changes of the recipe, as for ``boxwright.build``: ``{"image_size": 320, "train.steps": 100}``.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the recipe, the data or the folder cannot be used, or training has diverged; in one line.
        Interrupted: Ctrl-C was pressed or the system asked to stop; the state is saved.
    """
    began, overrides = began or time.monotonic(), overrides or {}
    folder = Path(out) if out is not None else default_folder(recipe, data)
    work = partial(
        _train_in_process,
        recipe,
        data,
        folder=folder,
        resume=resume,
        weights=weights,
        backbone_weights=backbone_weights,
        transforms=transforms,
        input_transforms=input_transforms,
        began=began,
        overrides=overrides,
    )
    with start_processes(_count_processes(recipe, folder, resume, overrides), work):
        return work(callbacks=callbacks, observer=observer or Observer())


def _train_in_process(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    data: Data,
    *,
    folder: Path,
    resume: Resume,
    weights: str | Path | None,
    backbone_weights: str | Path | None,
    transforms: Sequence[Any],
    input_transforms: Sequence[Any],
    began: float,
    overrides: Mapping[str, Any],
    callbacks: Sequence[Callback] = (),
    observer: Observer | None = None,
) -> TrainResult:
    """Train in this process, which may be one of several; of those the first alone has callbacks and an observer."""
    observer = observer_of_first(observer or Observer())
    with hold_run(folder, _share_run(folder, resume), observer) as goes_on:
        with first_of_machine_first():
            stored = _read_run(folder, recipe, overrides) if goes_on else None
            # A run that goes on needs no other file: it has its weights, and in its recipe what it took over.
            beginning = Beginning() if goes_on else Beginning.read(weights, backbone_weights, overrides=overrides)
            resolved = _resolve(recipe, stored, beginning, overrides, weights or backbone_weights, observer)
            run = replace(
                _prepare_run(resolved, data, folder, stored, beginning, observer),
                image_transforms=tuple(map(as_transform, transforms)),
                input_transforms=tuple(map(as_transform, input_transforms)),
                callbacks=check_callbacks(callbacks),
                began=began,
            )
        run = fit_batch(run, is_fixed=goes_on or is_parts_typed(overrides), observer=observer)
        return _train_run(run, resume=goes_on)


def _count_processes(
    recipe: str | Path | Mapping[str, Any] | Recipe, folder: Path, resume: Resume, overrides: Mapping[str, Any]
) -> int:
    """Count the processes that are to train together; a run that goes on has as many as before, unless overridden."""
    typed = {
        name: value
        for name, value in flatten({key.replace("-", "_"): value for key, value in overrides.items()}).items()
        if name.startswith("train.runtime.")
    }
    options = resolve(recipe, typed).recipe.train.runtime
    count = options.processes
    if resume and has_last(folder) and "train.runtime.processes" not in typed:
        count = read_run(folder).recipe.train.runtime.processes
    if count > 1 and choose_device(options.device).type == "cuda":
        if options.device != "auto":
            raise ValueError(f"train.runtime.device {options.device} is one device, and {count} processes take auto")
        if count > torch.cuda.device_count():
            raise ValueError(f"train.runtime.processes {count}: torch sees {torch.cuda.device_count()} CUDA devices")
    return count


def _train_run(run: Run, *, resume: bool) -> TrainResult:
    result = TrainResult.of(run, run_training(run, resume=resume))
    share_file(run.folder / BEST)
    return result


def _read_run(folder: Path, recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any]) -> StoredRun:
    # Imports the parts outside Boxwright that the caller names; what the run itself names is not imported.
    resolve(recipe, _replace_length(overrides))
    return read_run(folder)


def _resolve(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    stored: StoredRun | None,
    beginning: Beginning,
    overrides: Mapping[str, Any],
    weights: str | Path | None,
    observer: Observer,
) -> Recipe:
    base = recipe if stored is None or stored.source is None else stored.recipe
    resolved = resolve_beginning(base, _replace_length(overrides), beginning, observer)
    return resolved if stored is None else go_on_with(stored, resolved, overrides, weights, observer)


def _share_run(folder: Path, resume: Resume) -> Resume:
    """Let all machines have the run that goes on; processes that torchrun starts again go on unasked."""
    restarted = is_restarted()
    if resume or restarted:
        for name in (LAST, PREVIOUS, WEIGHTS):
            share_file(folder / name)
    return "auto" if restarted else resume


def default_folder(recipe: str | Path | Mapping[str, Any] | Recipe, data: Data) -> Path:
    """Return ``runs/RECIPE-DATA``."""
    name = Path(recipe).stem if isinstance(recipe, str | Path) else "recipe"
    return Path("runs") / f"{name}-{data_name(data)}"


def _replace_length(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Let a length of training among overrides take the place of any other."""
    typed = typed_options(overrides, "train")
    if not typed & set(LENGTHS):
        return dict(overrides)
    # Of several, the error says that one is enough.
    return {f"train.{name}": None for name in LENGTHS[1:] if name not in typed} | dict(overrides)


def _prepare_run(
    recipe: Recipe,
    data: Data,
    folder: Path,
    stored: StoredRun | None,
    beginning: Beginning,
    observer: Observer,
) -> Run:
    """Read what is needed, quick things first, and say what begins."""
    task = recipe.task
    categories = None if stored is None else stored.categories
    train_data = read_split(data, "train", task=task, categories=categories, observer=observer)
    own_data = describe_data(train_data, data)
    before = None if stored is None else stored.passport
    if before is not None:
        check_same_data(before, own_data, folder)
    validation = _read_validation(data, train_data, recipe, observer)
    measured = None if validation is None else describe_data(validation.data, data)
    if before is not None and (difference := note_other_validation(before, measured, folder)):
        observer.note(difference)
    options = recipe.train
    torch.manual_seed(options.runtime.seed)
    detector = build_resolved(recipe, categories=train_data.categories)
    initial_weights = beginning.load(detector, observer)
    detector.freeze(options.freeze)
    splits = {"train": train_data} | ({} if validation is None else {"val": validation.data})
    for line in brief_check(splits, task, detector) if stored is None else ():
        observer.announce(line)
    _announce(detector, train_data, validation, folder, observer)
    # A run that is resumed has one already, of which it keeps all but what it is measured on.
    detector.passport = training_passport(
        recipe, own_data, measured, parent=beginning.detector, backbone=beginning.backbone
    )
    return Run(
        detector=detector,
        recipe=recipe,
        data=train_data,
        augmentation=recipe.augment,
        folder=folder,
        evaluate=validation,
        console=observer.console,
        note=observer.note,
        initial_weights=initial_weights,
    )


def _read_validation(data: Data, train_data: DetectionData, recipe: Recipe, observer: Observer) -> Validation | None:
    task, schedule, precision = recipe.task, recipe.train.schedule, recipe.train.runtime.precision
    if not has_split(data, "val", task):
        layout = " with class folders (val/CLASS/*.jpg)" if task == "classification" else ""
        observer.note(f"there is no split val{layout}, so that nothing is measured during training")
        return None
    if schedule.evaluations == 0:
        return None
    whole = read_split(data, "val", task=task, categories=train_data.categories, observer=observer)
    if schedule.evaluation_images is None or schedule.evaluation_images >= len(whole.records):
        return Validation(whole, precision=precision)
    part = thin_out(whole, schedule.evaluation_images)
    observer.note(f"{len(part.records)} of {len(whole.records)} images of val are measured during training")
    return Validation(part, precision=precision)


def _announce(
    detector: Detector, data: DetectionData, validation: Validation | None, folder: Path, observer: Observer
) -> None:
    """Stop at masks that are missing; say what begins, and what will not work as hoped, before time is spent on it."""
    if detector.needs_masks:
        check_masks(data)
        if validation is not None:
            check_masks(validation.data, crowds=True)
    is_detector = detector.task == "detection"
    objects = f" (at most {max_objects(data)} objects in one)" if is_detector else ""
    images = f"{len(data.records)} images of {len(data.categories)} classes{_count_pseudo(data.pseudo)}"
    observer.announce(f"training on {images}{objects}, into {folder}")
    if quota := describe_quota(torch.get_num_threads()):
        observer.note(quota)
    # The class of a whole image is no object that a limit could hide.
    measured = (validation.data,) if validation is not None and is_detector else ()
    for split in (data, *measured) if is_detector else ():
        for option, line in head_limits(split, detector.head).items():
            observer.note(f"{line}: raise --head.{option}")
    for split in measured:
        if nothing := note_nothing_to_count(split, "val"):
            observer.note(nothing)
        if limit := coco_limit(split):
            observer.note(f"{split.source}: {limit} `boxwright eval --max-detections N` counts more.")
    frozen = [module for module in detector.modules() if isinstance(module, FrozenStatistics)]
    if untrained := sum(module.is_fresh() for module in frozen):
        norms = "norms" if untrained == len(frozen) else f"{untrained} of {len(frozen)} norms"
        observer.note(f"{norms} are frozen but were never trained; from scratch, take --backbone.norm batch")


def _count_pseudo(pseudo: PseudoPart | None) -> str:
    if pseudo is None:
        return ""
    return f", {pseudo.count} of them with pseudo-labels, {pseudo.drawn} in an epoch"
