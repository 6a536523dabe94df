"""``boxwright prelabel``: labels by a model, for people to correct."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from boxwright.cli.arguments import (
    MODEL_OR_FILE_HELP,
    OVERRIDES_HELP,
    CommandParser,
    add_trust_argument,
    read_threshold,
)
from boxwright.cli.compute_arguments import add_compute_arguments, read_compute
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import show


def run(argv: Sequence[str]) -> int:
    """Label, and say how many labels there are and how many are uncertain; return the exit status."""
    options, overrides = _parse(argv)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.prelabel import prelabel

    observer = ConsoleObserver()
    labeled = prelabel(
        options.model,
        options.paths,
        options.out,
        to=options.to,
        threshold=options.threshold,
        margin=options.margin,
        root=options.root,
        batch_size=options.batch_size,
        device=read_compute(options),
        trusted=options.trust,
        observer=observer,
        overrides=overrides,
    )
    repeated = f"; {labeled.num_repeated:,} were left out as repeated" if labeled.num_repeated else ""
    show(
        f"{options.out}: {labeled.num_objects:,} labels of {len(labeled.images):,} images, "
        f"{labeled.num_uncertain:,} of them uncertain{repeated}"
    )
    if labeled.skipped:
        reasons = "; ".join(one.reason for one in labeled.skipped[:3])
        total = len(labeled.images) + len(labeled.skipped)
        raise ValueError(f"{len(labeled.skipped)} of {total} images could not be read: {reasons}")
    return 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = CommandParser(
        "prelabel",
        description="Label images by a detector, for people to correct. Labels that are close to their threshold are\n"
        "marked as uncertain.\n" + OVERRIDES_HELP,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_OR_FILE_HELP)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files, folders of files, globs")
    parser.add_argument(
        "--out",
        metavar="OUT",
        required=True,
        help="a folder that does not exist or is empty; a file for label_studio and cvat",
    )
    parser.add_argument(
        "--to",
        metavar="FORMAT",
        default="coco",
        choices=("coco", "yolo", "voc", "label_studio", "cvat"),
        help="coco, yolo, voc, label_studio or cvat (default: coco)",
    )
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=read_threshold,
        help="least score, or tuned: that of each class (default: tuned, and 0.3 where the model was not)",
    )
    parser.add_argument(
        "--margin",
        metavar="M",
        type=float,
        default=0.15,
        help="labels whose score is less than this above their threshold are uncertain (default: 0.15)",
    )
    parser.add_argument(
        "--root", metavar="DIR", help="folder that Label Studio reads files from (default: that of all images)"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, help="images at a time")
    add_compute_arguments(parser)
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    return parser.parse(own), overrides
