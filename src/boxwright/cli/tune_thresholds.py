"""``boxwright tune-thresholds``: the least score of each class, stored in the checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import CommandParser, add_trust_argument
from boxwright.cli.compute_arguments import read_compute
from boxwright.cli.data_arguments import add_measured_data_arguments, check_measured_data, measured_files
from boxwright.cli.terminal import is_piped, json_target, quote_command, show, write_json
from boxwright.evaluation.threshold_target import Target
from boxwright.files import check_target

if TYPE_CHECKING:
    from boxwright.workflows.tune_thresholds import TuningResult


def run(argv: Sequence[str]) -> int:
    """Tune, store, print a table and say what it brings; return the exit status."""
    options = _parse(argv)
    target = json_target(options.json)
    from boxwright.cli.console import ConsoleObserver, TerminalConsole
    from boxwright.evaluation.tables import operating_tables
    from boxwright.workflows.tune_thresholds import tune_thresholds

    observer = ConsoleObserver()
    result = tune_thresholds(
        options.model,
        measured_files(options),
        split=options.split,
        target=options.target,
        batch_size=options.batch_size,
        workers=options.workers,
        device=read_compute(options),
        trusted=options.trust,
        observer=observer,
    )
    console = observer.console if is_piped(target) else TerminalConsole()
    console.print(operating_tables(result.points, result.held_out))
    show("\n".join(_lines(result)), error=is_piped(target))
    write_json(target, result.to_json())
    return 0


def _lines(result: TuningResult) -> list[str]:
    from boxwright.evaluation.operating_points import mean_f1

    tested = result.held_out
    return [
        f"F1 on images that thresholds were not tuned on, mean over classes: {mean_f1(tested.tuned):.3f}, and "
        f"{mean_f1(tested.untuned):.3f} with 0.5 for all",
        f"expected calibration error there: {tested.error_before:.3f} of the scores as they are, "
        f"{tested.error_after:.3f} once they are scaled",
        f"stored in {result.path}: {quote_command('predict', str(result.path), 'IMAGES', '--threshold', 'tuned')}",
    ]


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "tune-thresholds",
        description="Find the least score of each class that reaches a target, at IoU 0.5, and store it in the "
        "checkpoint: `boxwright predict` takes it as the threshold tuned, and exported files have it.",
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, or the folder of a run, whose best one is tuned")
    add_measured_data_arguments(parser, "folder of a data set that it was not trained on")
    parser.add_argument(
        "--target", default="f1", help="f1 for the best F1, precision=P or recall=R, as precision=0.9 (default: f1)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write all numbers as JSON")
    add_trust_argument(parser)
    options = parser.parse(argv)
    check_measured_data(parser, options)
    try:
        Target.parse(options.target)
    except ValueError as error:
        parser.error(f"--{error}")
    if target := json_target(options.json):
        check_target(target)
    return options
