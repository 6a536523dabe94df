"""``boxwright report``: a page on a model: how good it is, where it is wrong, and what it is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from boxwright.cli.arguments import MODEL_OR_FILE_HELP, OVERRIDES_HELP, CommandParser, add_trust_argument
from boxwright.cli.compute_arguments import read_compute
from boxwright.cli.data_arguments import add_measured_data_arguments, check_measured_data, measured_files
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import show
from boxwright.files import check_target


def run(argv: Sequence[str]) -> int:
    """Measure, write the page and say where it is; return the exit status."""
    options, overrides = _parse(argv)
    from boxwright.cli.console import ConsoleObserver, TerminalConsole
    from boxwright.evaluation.tables import evaluation_tables
    from boxwright.workflows.report import report

    result = report(
        options.model,
        measured_files(options),
        split=options.split,
        out=options.out,
        threshold=options.threshold,
        num_images=options.num_images,
        batch_size=options.batch_size,
        workers=options.workers,
        device=read_compute(options),
        trusted=options.trust,
        observer=ConsoleObserver(),
        overrides=overrides,
    )
    TerminalConsole().print(evaluation_tables(result.evaluation))
    show(f"report in {result.path}")
    return 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = CommandParser(
        "report",
        description="Measure a trained model, and write a page that tells how good it is, which errors cost how much, "
        "and what it is: numbers, errors by kind, the worst images, curves of training.\n" + OVERRIDES_HELP,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_OR_FILE_HELP)
    add_measured_data_arguments(parser)
    parser.add_argument("--out", metavar="FILE", default="report.html", help="the page (default: report.html)")
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=float,
        default=0.3,
        help="least score of detections that are drawn, and by which the worst images are chosen (default: 0.3)",
    )
    parser.add_argument(
        "--num-images", metavar="N", type=int, default=40, help="at most so many of the worst images (default: 40)"
    )
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    options = parser.parse(own)
    check_measured_data(parser, options)
    if not 0 <= options.threshold <= 1:
        parser.error(f"--threshold is between 0 and 1, not {options.threshold}")
    if options.num_images < 0:
        parser.error(f"--num-images is at least 0, not {options.num_images}")
    check_target(Path(options.out))
    return options, overrides
