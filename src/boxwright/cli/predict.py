"""``boxwright predict``: find objects in files, draw and list them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import (
    MODEL_OR_FILE_HELP,
    OVERRIDES_HELP,
    CommandParser,
    add_trust_argument,
    read_threshold,
)
from boxwright.cli.compute_arguments import add_compute_arguments, read_compute
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.style_arguments import add_style_arguments, read_style
from boxwright.cli.terminal import is_piped, json_target, show
from boxwright.files import check_target

if TYPE_CHECKING:
    from boxwright.workflows.predict import PredictionResult


def run(argv: Sequence[str]) -> int:
    """Predict, draw, write JSON and say how much was found; return the exit status."""
    options, overrides = _parse(argv)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.drawing import Drawings
    from boxwright.workflows.predict import predict
    from boxwright.workflows.predicted_results import CocoFile

    observer, target, style = ConsoleObserver(), json_target(options.json), read_style(options)
    result = predict(
        options.model,
        options.paths,
        threshold=options.threshold,
        out=Drawings(options.out, style),
        json=target,
        coco=CocoFile(coco, options.annotations) if (coco := json_target(options.coco)) else None,
        batch_size=options.batch_size,
        on_error="skip",
        device=read_compute(options, sides_std=options.sides_std),
        trusted=options.trust,
        observer=observer,
        overrides=overrides,
    )
    done, failed = len(result.detections), len(result.skipped)
    if done:
        show(_summary(result, options), error=is_piped(target))
    if failed:
        reasons = "; ".join(one.reason for one in result.skipped[:3])
        raise ValueError(f"{failed} of {done + failed} images could not be read: {reasons}")
    return 0


def _summary(result: PredictionResult, options: argparse.Namespace) -> str:
    objects = "objects in" if result.task == "detection" else "classes of"
    written = [f"as JSON in {options.json}"] if options.json is not None else []
    written += [f"in COCO's form in {options.coco}"] if options.coco is not None else []
    where = "".join(f", {one}" for one in written)
    count = len(result.detections)
    images = f"{count} image" if count == 1 else f"{count} images"
    line = f"{result.num_detections} {objects} {images}, drawn in {options.out}{where}"
    if result.num_detections:
        return line
    if result.best_score is None:
        return f"{line}; nothing has any score: the model predicts no object at all"
    return f"{line}; the best score is {result.best_score:.2g}, below --threshold {_show(result.threshold)}"


def _show(threshold: float | tuple[float, ...]) -> str:
    return "tuned" if isinstance(threshold, tuple) else f"{threshold:g}"


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Read what was typed, with changes of the model's recipe, and check it as far as it can be without the model."""
    parser = CommandParser(
        "predict",
        description="Find objects in files, or their classes; draw them, and list them as JSON.\n" + OVERRIDES_HELP,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_OR_FILE_HELP)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files, folders of files, globs")
    parser.add_argument("--out", metavar="DIR", default="predictions", help="for drawn images (default: predictions)")
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=read_threshold,
        help="least score; a classifier's likeliest class is there in any case (default: 0.3, and 0 in --coco's file); "
        "tuned: that of each class, of `boxwright tune-thresholds`",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write detections as JSON, - for standard output: boxes as [x, y, w, h], masks as RLE; a "
        "name that ends in .geojson: where georeferenced images lie",
    )
    parser.add_argument(
        "--coco", metavar="FILE", help="also write detections in COCO's results form, for `boxwright eval --detections`"
    )
    parser.add_argument(
        "--annotations", metavar="FILE", help="annotation file whose ids of images and categories --coco's file has"
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        help="images at a time (default: 4 where every image becomes the same square, else 1)",
    )
    parser.add_argument(
        "--sides-std",
        action="store_true",
        help="draw how far each side may be off, a standard deviation to both sides, and list it in --json's file; for "
        "models whose head predicts it (dfine)",
    )
    add_compute_arguments(parser)
    add_style_arguments(parser)
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    options = parser.parse(own)
    if options.threshold not in (None, "tuned") and not 0 <= options.threshold <= 1:
        parser.error(f"--threshold is between 0 and 1, or tuned, not {options.threshold}")
    if options.batch_size is not None and options.batch_size < 1:
        parser.error(f"--batch-size is at least 1, not {options.batch_size}")
    for typed in (options.json, options.coco):
        if target := json_target(typed):
            check_target(target)
    if options.annotations is not None and options.coco is None:
        parser.error("--annotations gives --coco's file its ids; give --coco FILE too")
    return options, overrides
