"""``boxwright compare``: models beside each other on the same images, with intervals of their differences."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from boxwright.cli.arguments import CommandParser, add_trust_argument
from boxwright.cli.compute_arguments import read_compute
from boxwright.cli.data_arguments import add_measured_data_arguments, check_measured_data, measured_files
from boxwright.cli.terminal import is_piped, json_target, show, write_json
from boxwright.files import check_target


def run(argv: Sequence[str]) -> int:
    """Measure, compare, print tables, write JSON and a page; return the exit status."""
    options = _parse(argv)
    target = json_target(options.json)
    from boxwright.cli.comparison_tables import comparison_tables
    from boxwright.cli.console import ConsoleObserver, TerminalConsole
    from boxwright.workflows.compare import compare

    observer = ConsoleObserver()
    result = compare(
        options.models,
        measured_files(options),
        split=options.split,
        html=options.html,
        num_samples=options.samples,
        seed=options.seed,
        latency=not options.no_latency,
        batch_size=options.batch_size,
        workers=options.workers,
        device=read_compute(options),
        trusted=options.trust,
        observer=observer,
    )
    console = observer.console if is_piped(target) else TerminalConsole()
    console.print(comparison_tables(result))
    if options.html is not None:
        show(f"page in {options.html}", error=is_piped(target))
    write_json(target, result.to_json())
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "compare",
        description="Measure models on the same images and compare each with the first: differences with intervals of "
        "95 %, class by class, objects that one alone detects, parameters, multiply-adds and latency.",
    )
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="two or more: checkpoints, folders of runs, exported files (.onnx, .xml), results files of any project "
        "(.json, in COCO's form)",
    )
    add_measured_data_arguments(parser, "folder of the data set, in any known format")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers as JSON")
    parser.add_argument("--html", metavar="FILE", help="also write a page, with images that they differ in")
    parser.add_argument(
        "--samples", metavar="N", type=int, default=1000, help="samples of the images, for intervals (default: 1000)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="draws the samples (default: 0)")
    parser.add_argument("--no-latency", action="store_true", help="do not measure the time of one image")
    add_trust_argument(parser)
    options = parser.parse(argv)
    if len(options.models) < 2:
        parser.error("two or more are compared, and one is given")
    check_measured_data(parser, options)
    if options.seed < 0:
        parser.error(f"--seed is at least 0, not {options.seed}")
    for path in (json_target(options.json), options.html):
        if path is not None:
            check_target(Path(path))
    return options
