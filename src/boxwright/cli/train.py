"""``boxwright train``: train a detector on a data set."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from boxwright.cli.arguments import CommandParser
from boxwright.cli.backbone_weights import report
from boxwright.cli.data_arguments import add_split_arguments, read_split
from boxwright.cli.recipe_arguments import BACKBONE_WEIGHTS, parse_recipe_command
from boxwright.compose.detectors import build_resolved, read_checkpoint
from boxwright.compose.recipes import section_options
from boxwright.compose.tasks import check_task, recipe_task
from boxwright.data.masks import check_masks
from boxwright.data.open import list_splits
from boxwright.data.records import DetectionData, max_objects
from boxwright.detector import Detector
from boxwright.evaluation.limits import coco_limit, head_limits
from boxwright.files import check_folder
from boxwright.layers.conv import FrozenBatchNorm2d
from boxwright.structures import Category, Task
from boxwright.training.checkpoint import BEST, LAST, Progress
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import LOG
from boxwright.training.loop import train
from boxwright.training.run import RECIPE, WEIGHTS, Run
from boxwright.weights.backbone import load_backbone_weights, read_backbone_weights
from boxwright.workflows.validation import Validation

BEFORE_A_CHECKPOINT = {RECIPE, LOG, WEIGHTS, "tensorboard", "last.unfinished"}
"""What a run leaves that ended before its first checkpoint: nothing that is worth keeping."""


def run(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    began = time.monotonic()
    parser = CommandParser(
        "train",
        description="Train a detector on a data set in COCO format, or a classifier on train/CLASS/*.jpg; best.pt has "
        "the weights with the best AP on the validation split, of masks where they are found, or the best top-1.",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="data set: annotations/train.json + images/, a like layout, or train/CLASS/"
    )
    add_split_arguments(parser, "train")
    add_split_arguments(parser, "val")
    parser.add_argument("--out", metavar="RUN", help="folder of the run; runs/RECIPE-DATA where not given")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument(
        BACKBONE_WEIGHTS, metavar="RUN", dest="backbone_weights", help="begin with the backbone of another run"
    )
    options, recipe, notes = parse_recipe_command(parser, argv)
    console = Console(stderr=True)
    for note in notes:
        say(console, f"note: {note}")
    if options.data is None and options.train_annotations is None:
        parser.error("which data set? give --data DIR, or --train-annotations FILE and --train-images DIR")
    folder = Path(options.out) if options.out else _default_folder(options)
    return train_recipe(console, recipe, folder, options, began=began, command=shlex.join(["train", *argv]))


def train_recipe(
    console: Console,
    recipe: dict[str, Any],
    folder: Path,
    options: argparse.Namespace,
    *,
    began: float,
    command: str,
) -> int:
    """Train a resolved recipe into ``folder``; returns the exit status.

    Args:
        console: for what the user reads on the way.
        recipe: resolved.
        folder: of the run.
        options: ``data``, ``{train,val}_{annotations,images}``, ``resume`` and ``backbone_weights``, as in ``run``.
        began: ``time.monotonic()`` when the user's budget began to run.
        command: what was typed, to say how to go on after Ctrl-C.
    """
    _check_folder(folder, options.resume)
    categories: list[Category] | None = None
    if options.resume:
        recipe, categories = _as_begun(console, recipe, folder, options.backbone_weights)
    work = _work(console, recipe, folder, options, categories, began)
    try:
        progress = train(work, resume=options.resume)
    except Interrupted:
        again = command if options.resume or command.startswith("demo") else f"{command} --resume"
        say(console, f"stopped and saved in {folder}; to go on:  boxwright {again}")
        return 130
    _conclude(console, progress, folder, None if work.evaluate is None else options.data or "DIR")
    return 0


def _work(
    console: Console,
    recipe: dict[str, Any],
    folder: Path,
    options: argparse.Namespace,
    categories: list[Category] | None,
    began: float,
) -> Run:
    """Read what is needed, quick things first, and say what begins."""
    task = recipe_task(recipe)
    check_task(recipe, task)
    source = None if options.resume else options.backbone_weights
    given = None if source is None else read_backbone_weights(source)
    data = _split(console, "train", options, categories, task)
    validation = _validation(console, options, data, task)
    settings = section_options(recipe, "train")
    torch.manual_seed(settings.runtime.seed)
    detector = build_resolved(recipe, categories=data.categories)
    transfer = None
    if given is not None:
        transfer = load_backbone_weights(detector, given)
        for line in report(transfer, given, detector.input_format):
            say(console, line)
    _announce(console, detector, data, validation, folder)
    return Run(
        detector=detector,
        recipe=recipe,
        data=data,
        augmentation=section_options(recipe, "augment"),
        options=settings,
        folder=folder,
        evaluate=validation,
        console=console,
        backbone_weights=None if transfer is None else transfer.to_json(),
        began=began,
    )


def _as_begun(
    console: Console, recipe: dict[str, Any], folder: Path, weights: str | None
) -> tuple[dict[str, Any], list[Category]]:
    """The recipe and classes that a run began with; says where another recipe or another backbone was given."""
    stored = read_checkpoint(folder / LAST)
    differences = _differences(stored["recipe"], recipe)
    source = _backbone_source(folder)
    if weights is not None and (source is None or Path(weights) not in (source, source.parent)):
        differences.append(f"with {source or 'a fresh backbone'}, not the backbone of {weights}")
    for difference in differences:
        say(console, f"note: the run goes on as it began, {difference}")
    return stored["recipe"], [Category(int(number), str(name)) for number, name in stored["categories"]]


def _backbone_source(folder: Path) -> Path | None:
    """The checkpoint whose backbone a run began with."""
    file = folder / WEIGHTS
    return Path(json.loads(file.read_text())["source"]) if file.is_file() else None


def _conclude(console: Console, progress: Progress, folder: Path, data: str | None) -> None:
    """Say what came out, and what to type next; ``data`` has a split to evaluate on."""
    best = f", best {progress.measure} {progress.best:.3f}" if progress.best >= 0 else ""
    say(console, f"done: {progress.steps} steps in {progress.seconds:.0f} s{best}")
    commands = [] if data is None else [f"boxwright eval {folder / BEST} --data {data} --split val"]
    commands.append(f"boxwright predict {folder / BEST} IMAGE...")
    for lead, line in zip(("now: ", "     "), commands, strict=False):
        say(console, f"{lead} {line}")


def _announce(
    console: Console, detector: Detector, data: DetectionData, validation: Validation | None, folder: Path
) -> None:
    """Stop at masks that are missing; say what begins, and what will not work as hoped, before time is spent on it."""
    if detector.needs_masks:
        check_masks(data)
        if validation is not None:
            check_masks(validation.data, crowds=True)
    objects = f" (at most {max_objects(data)} objects in one)" if detector.task == "detection" else ""
    images = f"{len(data.records)} images of {len(data.categories)} classes"
    say(console, f"training on {images}{objects}, into {folder}")
    # An image's class is no object that could be hidden.
    measured = () if validation is None or detector.task == "classification" else (validation.data,)
    for split in (data, *measured) if detector.task == "detection" else ():
        for option, line in head_limits(split, detector.head).items():
            say(console, f"note: {line}: raise --head.{option}")
    for split in measured:
        if limit := coco_limit(split):
            say(console, f"note: {split.source}: {limit} `boxwright eval --max-detections N` counts more.")
    frozen = [m for m in detector.modules() if isinstance(m, FrozenBatchNorm2d)]
    if untrained := sum(m.is_fresh() for m in frozen):
        share = "norms" if untrained == len(frozen) else f"{untrained} of {len(frozen)} norms"
        say(console, f"note: {share} are frozen but were never trained; from scratch, take --backbone.norm batch")


def say(console: Console, line: str) -> None:
    """Print a line as it is, unbroken."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _default_folder(options: argparse.Namespace) -> Path:
    source = Path(options.data or options.train_annotations).resolve()
    name = source.name if source.is_dir() else source.stem
    return Path("runs") / f"{Path(options.recipe).stem}-{name}"


def _check_folder(folder: Path, resume: bool) -> None:
    if resume and not (folder / LAST).is_file():
        raise FileNotFoundError(f"{folder}: no run to resume here ({LAST} is missing); leave --resume out to begin one")
    check_folder(folder)
    if not resume and folder.exists() and {path.name for path in folder.iterdir()} - BEFORE_A_CHECKPOINT:
        raise ValueError(
            f"{folder} exists already and is not overwritten: give another --out, or --resume to go on with it"
        )


def _validation(
    console: Console, options: argparse.Namespace, train_data: DetectionData, task: Task
) -> Validation | None:
    if options.val_annotations is None and (options.data is None or not _has_val(Path(options.data), task)):
        layout = " with class folders (val/CLASS/*.jpg)" if task == "classification" else ""
        say(console, f"note: there is no split val{layout}, so that nothing is measured during training")
        return None
    return Validation(_split(console, "val", options, train_data.categories, task))


def _split(
    console: Console, split: str, options: argparse.Namespace, categories: Sequence[Category] | None, task: Task
) -> DetectionData:
    return read_split(
        console,
        split,
        options.data,
        annotations=getattr(options, f"{split}_annotations"),
        images=getattr(options, f"{split}_images"),
        categories=categories,
        task=task,
    )


def _has_val(data: Path, task: Task) -> bool:
    return "val" in list_splits(data, task=task)


def _differences(stored: Any, given: Any, path: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        return [
            line
            for key in {**stored, **given}
            for line in _differences(stored.get(key), given.get(key), f"{path}.{key}" if path else str(key))
        ]
    # "auto" is stored as what it came to.
    return [] if stored == given or given == "auto" else [f"with {path} {stored}, not {given}"]
