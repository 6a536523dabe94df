"""``boxwright train``: train a detector on a data set."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from boxwright.cli.arguments import CommandParser, require_typed_files
from boxwright.cli.data_arguments import add_format_argument, add_split_arguments, files_of, split_files
from boxwright.cli.recipe_arguments import BACKBONE_WEIGHTS, parse_recipe_command
from boxwright.cli.terminal import quote_command, quote_path
from boxwright.weights.source_names import require_source

if TYPE_CHECKING:
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.reading import DataFiles
    from boxwright.workflows.train import TrainResult


def run(argv: Sequence[str]) -> int:
    """Train, and say what to type next; return the exit status."""
    began = time.monotonic()
    parser = CommandParser(
        "train",
        description="Train a detector on a data set of any known format, or a classifier on train/CLASS/*.jpg. "
        "best.safetensors has the weights with the best AP on the validation split, of masks where it predicts them, "
        "or the best top-1.",
    )
    parser.add_argument("--data", metavar="DIR", help="folder of the data set, in any known format, or of train/CLASS/")
    add_split_arguments(parser, "train")
    add_split_arguments(parser, "val")
    add_format_argument(parser)
    _add_pseudo(parser)
    parser.add_argument("--out", metavar="RUN", help="folder of the run; runs/RECIPE-DATA where left out")
    _add_resume(parser)
    _add_weights(parser)

    def check_data(options: argparse.Namespace) -> None:
        if options.data is None and options.train_annotations is None:
            parser.error("which data set? give --data DIR, or --train-annotations FILE and --train-images DIR")
        require_typed_files(options)
        _check_pseudo(parser, options)
        if options.resume is None:  # A run that goes on has no need of them.
            require_source(options.weights)
            require_source(options.backbone_weights)

    options, _, _, overrides = parse_recipe_command(parser, _join_resume(argv), check=check_data)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.cli.torchrun import boxwright_command
    from boxwright.training.interrupt import Interrupted
    from boxwright.workflows.train import default_folder, train

    observer = ConsoleObserver()
    data = _files_of(options)
    folder = options.out or default_folder(options.recipe, data)
    try:
        result = train(
            options.recipe,
            data,
            out=folder,
            resume="auto" if options.resume == "auto" else options.resume is not None,
            weights=options.weights,
            backbone_weights=options.backbone_weights,
            observer=observer,
            began=began,
            overrides=overrides,
        )
    except Interrupted as interrupted:
        again = boxwright_command(["train", *argv, *([] if options.resume else ["--resume"])])
        observer.announce(f"stopped and saved in {folder}; to go on:  {again}")
        return 128 + interrupted.number
    _conclude(observer, result, options.data or "DIR")
    return 0


def _add_weights(parser: CommandParser) -> None:
    parser.add_argument(
        "--weights",
        metavar="SOURCE",
        help="fine-tune: begin with a whole detector, a run or checkpoint of ours or a source of another project",
    )
    parser.add_argument(
        BACKBONE_WEIGHTS, metavar="SOURCE", dest="backbone_weights", help="begin with the backbone of such a source"
    )


def _add_pseudo(parser: CommandParser) -> None:
    parser.add_argument(
        "--pseudo", metavar="DIR", help="a data set with labels of a detector, as prelabel writes it, to train on too"
    )
    parser.add_argument(
        "--pseudo.weight",
        metavar="W",
        dest="pseudo_weight",
        type=float,
        help="how often an epoch shows each of its images, on average (default: 1)",
    )


def _check_pseudo(parser: CommandParser, options: argparse.Namespace) -> None:
    if options.pseudo is None and options.pseudo_weight is not None:
        parser.error("--pseudo.weight is of pseudo-labels: give --pseudo DIR too")
    if options.pseudo is not None and not Path(options.pseudo).exists():
        raise FileNotFoundError(f"folder of pseudo-labels {options.pseudo} does not exist")


def _files_of(options: argparse.Namespace) -> DataFiles:
    files = files_of(options, {split: split_files(options, split) for split in ("train", "val")})
    weight = files.pseudo_weight if options.pseudo_weight is None else options.pseudo_weight
    return replace(files, pseudo=options.pseudo, pseudo_weight=weight)


def _add_resume(parser: CommandParser) -> None:
    parser.add_argument(
        "--resume",
        metavar="auto",
        nargs="?",
        const="yes",
        choices=("auto", "yes"),
        help="go on from the run's last checkpoint; with auto, begin a run where there is none",
    )


def _join_resume(argv: Sequence[str]) -> list[str]:
    """Join ``--resume`` with the ``auto`` behind it, so that no other argument is taken for its value."""
    joined: list[str] = []
    for argument in argv:
        if argument == "auto" and joined[-1:] == ["--resume=yes"]:
            joined[-1] = "--resume=auto"
        else:
            joined.append("--resume=yes" if argument == "--resume" else argument)
    return joined


def _conclude(observer: ConsoleObserver, result: TrainResult, data: str) -> None:
    """Say what came out, and what to type next."""
    best = "" if result.best is None else f", best {result.measure} {result.best:.3f}"
    observer.announce(f"done: {result.steps} steps in {result.seconds:.0f} s{best}")
    checkpoint, data = quote_path(result.checkpoint), quote_path(data)
    commands = [quote_command("eval", checkpoint, "--data", data, "--split", "val")] if result.is_measured else []
    commands.append(f"{quote_command('predict', checkpoint)} IMAGE...")
    for lead, line in zip(("now: ", "     "), commands, strict=False):
        observer.announce(f"{lead} {line}")
