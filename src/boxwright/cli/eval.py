"""``boxwright eval``: measure a trained detector on a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import MODEL_OR_FILE_HELP, OVERRIDES_HELP, CommandParser, add_trust_argument
from boxwright.cli.compute_arguments import read_compute
from boxwright.cli.data_arguments import add_measured_data_arguments, check_measured_data, measured_files
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import is_piped, json_target, write_json
from boxwright.files import check_target

if TYPE_CHECKING:
    from boxwright.cli.console import ConsoleObserver
    from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation
    from boxwright.structures import SelectionQuality

COCO_DETECTIONS = 100


def run(argv: Sequence[str]) -> int:
    """Measure, print tables and write JSON; return the exit status."""
    options, overrides = _parse(argv)
    target = json_target(options.json)
    from boxwright.cli.console import ConsoleObserver, TerminalConsole
    from boxwright.evaluation.evaluate import Evaluation
    from boxwright.evaluation.tables import evaluation_tables

    observer = ConsoleObserver()
    evaluation = _measure(options, overrides, observer)
    console = observer.console if is_piped(target) else TerminalConsole()
    console.print(evaluation_tables(evaluation))
    if isinstance(evaluation, Evaluation) and evaluation.selection is not None:
        console.print(selection_line(evaluation.selection), highlight=False, soft_wrap=True)
    if target is not None:
        numbers = evaluation.to_json()
        if isinstance(evaluation, Evaluation):
            numbers["findings"] = [one.to_json() for one in evaluation.findings]
        write_json(target, numbers)
    return 0


def _measure(
    options: argparse.Namespace, overrides: dict[str, str], observer: ConsoleObserver
) -> Evaluation | ClassEvaluation:
    """Measure a model, or the detections in a file."""
    files = measured_files(options)
    if options.detections is not None:
        from boxwright.workflows.evaluate_results import evaluate_results

        limit = options.max_detections or COCO_DETECTIONS
        return evaluate_results(options.detections, files, split=options.split, max_detections=limit, observer=observer)
    from boxwright.workflows.evaluate import evaluate

    return evaluate(
        options.model,
        files,
        split=options.split,
        batch_size=options.batch_size,
        workers=options.workers,
        max_detections=options.max_detections,
        device=read_compute(options),
        save_detections=json_target(options.save_detections),
        trusted=options.trust,
        observer=observer,
        overrides=overrides,
    )


def selection_line(selection: SelectionQuality) -> str:
    """Say in a sentence how good the selected queries are."""
    confident, fitting = selection.ratios()
    return (
        f"of {selection.selected:,} selected queries {confident:.2%} have a score above 0.5, "
        f"{fitting:.2%} and an IoU above 0.5"
    )


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Read what was typed, with changes of the model's recipe, and check it as far as it can be without any file."""
    parser = CommandParser(
        "eval",
        description="Measure a trained detector: the 12 COCO numbers and a table per class, of boxes and, where it "
        "predicts them, of masks; of a classifier top-1 and top-5. With --detections, measure the detections in a "
        "file, of any project, without a model and without images.\n" + OVERRIDES_HELP,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help=MODEL_OR_FILE_HELP)
    parser.add_argument(
        "--detections", metavar="FILE", help="instead of a model: detections in COCO's results form, of any project"
    )
    add_measured_data_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="also write the numbers as JSON")
    parser.add_argument(
        "--save-detections", metavar="FILE", help="also write the detections as JSON, in COCO's results form"
    )
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=int,
        help=f"find and count so many per image, for dense images; COCO counts {COCO_DETECTIONS} per class",
    )
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    options = parser.parse(own)
    check_measured_data(parser, options)
    for typed in (options.json, options.save_detections):
        if target := json_target(typed):
            check_target(target)
    _check_source(parser, options, overrides)
    if options.max_detections is not None and options.max_detections < COCO_DETECTIONS:
        parser.error(f"--max-detections is at least COCO's {COCO_DETECTIONS}, not {options.max_detections}")
    return options, overrides


def _check_source(parser: CommandParser, options: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Make sure that there is one thing to measure, and nothing typed that is not for it."""
    if options.detections is None:
        if options.model is None:
            parser.error("what is measured? give MODEL, or --detections FILE")
        return
    if options.model is not None:
        parser.error(f"either MODEL or --detections is measured, and both are given: {options.model} and a file")
    for option in ("save_detections", *overrides):
        if option in overrides or getattr(options, option) is not None:
            parser.error(f"--{option.replace('_', '-')} is for models, and --detections is measured as it is")
