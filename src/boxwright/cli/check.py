"""``boxwright check``: a data set before any training, every fault by name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from boxwright.cli.arguments import CommandParser, add_trust_argument, import_trusted, require_typed_files
from boxwright.cli.data_arguments import add_format_argument, add_split_arguments, files_of, split_files
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import is_piped, json_target, show, write_json
from boxwright.compose.recipes import load_recipe
from boxwright.files import check_target

_SPLITS = ("train", "val", "test")
"""Splits whose files can be typed one by one."""

_FOLDS = 3


def run(argv: Sequence[str]) -> int:
    """Check, print, and write what was asked for; return 1 where there are errors, else 0."""
    own, overrides = take_overrides(argv)
    options = _parse(own, overrides)
    require_typed_files(options)
    target = json_target(options.json)
    if target is not None:
        check_target(target)
    import_trusted(options.trust)
    if options.recipe is not None:
        load_recipe(options.recipe)  # a slip in its name is answered before anything slow is imported
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.check import check

    observer = ConsoleObserver()
    report = check(
        files_of(options, {split: split_files(options, split) for split in _SPLITS}),
        recipe=options.recipe,
        try_out=options.try_out,
        model=options.model,
        folds=_FOLDS if options.folds is None else options.folds,
        label_split=options.label_split or "train",
        fix=options.fix,
        html=options.html,
        observer=observer,
        overrides=overrides,
    )
    lines = "\n".join(report.lines())
    if is_piped(target):
        observer.announce(lines)
    else:
        show(lines)
    write_json(target, report.to_json())
    return 1 if report.has_errors else 0


def _parse(argv: Sequence[str], overrides: dict[str, str]) -> argparse.Namespace:
    parser = CommandParser(
        "check",
        description="Check a data set before any training: every fault with its file and annotation, the first ten\n"
        "of each kind. The exit status is 1 where there are errors, which stop training or make it wrong, 2 where\n"
        "nothing can be checked, and else 0, whatever the warnings and notes.",
    )
    parser.add_argument("folder", metavar="DATA", nargs="?", help="folder of the data set, in any format that is known")
    parser.add_argument("--data", metavar="DIR", help="the same")
    for split in _SPLITS:
        add_split_arguments(parser, split)
    add_format_argument(parser)
    parser.add_argument(
        "--recipe", metavar="R", help="also check what this recipe's network will see; --image-size N and the like fit"
    )
    parser.add_argument(
        "--try",
        dest="try_out",
        action="store_true",
        help="also make the worst training step of the recipe, for its time and memory, and learn eight images",
    )
    parser.add_argument("--model", metavar="RUN", help="rank probable label errors by models like this one")
    parser.add_argument(
        "--folds",
        metavar="K",
        type=int,
        help="models, each trained without a part of the images; 0 takes the model as it is (default: 3);\n"
        "--train.steps N and all other options of its recipe fit where there is no --recipe",
    )
    parser.add_argument(
        "--label-split", metavar="SPLIT", help="the split whose label errors are ranked (default: train)"
    )
    parser.add_argument(
        "--fix",
        metavar="DST",
        help="write a repaired copy into a folder that does not exist (COCO format, or class folders), and fixes.json "
        "with each change",
    )
    parser.add_argument(
        "--html",
        metavar="PAGE",
        help="write everything as one page, with images of the findings; an older one is replaced",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write everything as JSON, an older file is replaced; - for standard output"
    )
    add_trust_argument(parser)
    options = parser.parse(argv)
    if options.folder is not None and options.data is not None:
        parser.error("two data sets: give DATA or --data, not both")
    options.data = options.folder or options.data
    if options.data is None and not any(split_files(options, split)[0] for split in _SPLITS):
        parser.error("which data set? give its folder, or --train-annotations FILE and --train-images DIR")
    if options.model is None:
        for name in ("folds", "label_split"):
            if getattr(options, name) is not None:
                parser.error(f"--{name.replace('_', '-')} is about label errors: give it with --model RUN")
    if overrides and options.recipe is None and (options.model is None or options.folds == 0):
        parser.error(f"--{next(iter(overrides)).replace('_', '-')} changes a recipe: give it with --recipe R")
    return options
