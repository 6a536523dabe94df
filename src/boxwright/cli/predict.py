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
from boxwright.cli.shard_arguments import add_shard_arguments, check_shard_arguments, read_shard_options
from boxwright.cli.style_arguments import DRAWINGS, add_style_arguments, read_style
from boxwright.cli.terminal import is_piped, json_target, show
from boxwright.cli.video_arguments import add_video_arguments, check_video_arguments, run_video
from boxwright.files import check_target

if TYPE_CHECKING:
    from boxwright.workflows.predict import PredictionResult
    from boxwright.workflows.predict_shards import ShardedPrediction


def run(argv: Sequence[str]) -> int:
    """Predict, draw, write JSON and say how much was found; return the exit status."""
    options, overrides = _parse(argv)
    if options.is_video:
        return run_video(options, overrides)
    if options.results is not None:
        return _run_shards(options, overrides)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.drawing import Drawings
    from boxwright.workflows.predict import predict
    from boxwright.workflows.predicted_results import CocoFile

    observer, target, style = ConsoleObserver(), json_target(options.json), read_style(options)
    result = predict(
        options.model,
        options.paths,
        threshold=options.threshold,
        out=Drawings(options.out or DRAWINGS, style),
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
        show(_summary(result, done, _describe_outputs(options)), error=is_piped(target))
    if failed:
        reasons = "; ".join(one.reason for one in result.skipped[:3])
        raise ValueError(f"{failed} of {done + failed} images could not be read: {reasons}")
    return 0


def _run_shards(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    from boxwright.cli.console import ConsoleObserver
    from boxwright.drawing import Drawings
    from boxwright.workflows.predict_shards import predict_shards

    result = predict_shards(
        options.model,
        options.paths,
        read_shard_options(options),
        resume=options.resume,
        engine=options.engine or "local",
        threshold=options.threshold,
        out=None if options.out is None else Drawings(options.out, read_style(options)),
        batch_size=options.batch_size,
        device=read_compute(options, sides_std=options.sides_std),
        trusted=options.trust,
        observer=ConsoleObserver(),
        overrides=overrides,
    )
    if result.unreadable is not None:
        total = result.num_images + result.num_unreadable
        line = f"{result.num_unreadable:,} of {total:,} images could not be read: {result.unreadable}"
        if not result.num_images:
            raise ValueError(line)
        show(f"note: {line}", error=True)
    count = f"{len(result.files)} {'shard' if len(result.files) == 1 else 'shards'}"
    before = f", {result.num_resumed} of them from before" if result.num_resumed else ""
    drawn = "" if options.out is None else f", drawn in {options.out}"
    show(_summary(result, result.num_images, f"{drawn}, in {count} in {options.results}{before}"))
    return 0


def _describe_outputs(options: argparse.Namespace) -> str:
    written = [f"drawn in {options.out or DRAWINGS}"]
    written += [f"as JSON in {options.json}"] if options.json is not None else []
    written += [f"in COCO's form in {options.coco}"] if options.coco is not None else []
    return "".join(f", {one}" for one in written)


def _summary(result: PredictionResult | ShardedPrediction, count: int, outputs: str) -> str:
    objects = "objects in" if result.task == "detection" else "classes of"
    images = f"{count} image" if count == 1 else f"{count} images"
    line = f"{result.num_detections} {objects} {images}{outputs}"
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
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="files, folders of files, globs, archives (.tar, .zip), lists (.txt, .jsonl, .parquet), addresses "
        "(s3://...); or one video",
    )
    parser.add_argument("--out", metavar="DIR", help=f"for drawn images (default: {DRAWINGS})")
    parser.add_argument(
        "--threshold",
        metavar="T",
        type=read_threshold,
        help="least score; a classifier's likeliest class is there in any case (default: 0.3, and 0 in --coco's file); "
        "tuned: that of each class, of `boxwright tune-thresholds`",
    )
    _add_output_arguments(parser)
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
    add_video_arguments(parser)
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    options = parser.parse(own)
    check_video_arguments(parser, options)
    if options.threshold not in (None, "tuned") and not 0 <= options.threshold <= 1:
        parser.error(f"--threshold is between 0 and 1, or tuned, not {options.threshold}")
    if options.batch_size is not None and options.batch_size < 1:
        parser.error(f"--batch-size is at least 1, not {options.batch_size}")
    check_shard_arguments(parser, options)
    for typed in (options.json, options.coco):
        if target := json_target(typed):
            check_target(target)
    if options.annotations is not None and options.coco is None:
        parser.error("--annotations gives --coco's file its ids; give --coco FILE too")
    return options, overrides


def _add_output_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write detections as JSON, - for standard output: boxes as [x, y, w, h], masks as RLE; a "
        "name that ends in .geojson: where georeferenced images lie; of a video, a line for each frame",
    )
    parser.add_argument(
        "--coco", metavar="FILE", help="also write detections in COCO's results form, for `boxwright eval --detections`"
    )
    parser.add_argument(
        "--annotations", metavar="FILE", help="annotation file whose ids of images and categories --coco's file has"
    )
    add_shard_arguments(parser)
