"""``boxwright next``: the images that are worth labeling first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from boxwright.cli.arguments import MODEL_OR_FILE_HELP, OVERRIDES_HELP, CommandParser, add_trust_argument
from boxwright.cli.compute_arguments import add_device_arguments
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import show

_NUM_SHOWN = 10


def run(argv: Sequence[str]) -> int:
    """Choose, write the list, and show the first with their reasons; return the exit status."""
    options, overrides = _parse(argv)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.devices import ComputeOptions
    from boxwright.workflows.next_images import next_images

    result = next_images(
        options.model,
        options.paths,
        options.count,
        labeled=options.labeled,
        out=options.out,
        device=ComputeOptions(device=options.device, precision=options.precision),
        trusted=options.trust,
        observer=ConsoleObserver(),
        overrides=overrides,
    )
    for one in result.images[:_NUM_SHOWN]:
        show(f"{one.path}: {one.reason}")
    if len(result.images) > _NUM_SHOWN:
        show("...")
    repeated = f", {result.num_repeated:,} left out as nearly the same" if result.num_repeated else ""
    show(f"{options.out}: {len(result.images):,} of {result.num_read:,} images{repeated}")
    if result.skipped:
        reasons = "; ".join(one.reason for one in result.skipped[:3])
        raise ValueError(f"{len(result.skipped)} images could not be read: {reasons}")
    return 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = CommandParser(
        "next",
        description="Choose the images that are worth labeling first: those that a detector is unsure of and that\n"
        "differ from each other, one of those that are nearly the same.\n" + OVERRIDES_HELP,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_OR_FILE_HELP)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files, folders of files, globs")
    parser.add_argument("--count", "-n", metavar="N", type=int, default=100, help="images, at most (default: 100)")
    parser.add_argument("--labeled", metavar="DIR", help="data set whose images are labeled already")
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="next.jsonl",
        help="list with reasons, as JSON lines; with paths alone where it ends in .txt (default: next.jsonl)",
    )
    add_device_arguments(parser)
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    options = parser.parse(own)
    if options.count < 1:
        parser.error(f"--count is at least 1, not {options.count}")
    return options, overrides
