"""Videos, streams and cameras of ``boxwright predict``: their options, and what is done with them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from boxwright.cli.compute_arguments import read_compute
from boxwright.cli.style_arguments import DRAWINGS, read_style
from boxwright.cli.terminal import is_piped, json_target, show
from boxwright.clock import format_clock
from boxwright_runtime.video_names import is_video, show_source

if TYPE_CHECKING:
    from boxwright.workflows.predict_video import VideoResult
    from boxwright.workflows.video_frames import TrackOptions

_OPTIONS = ("track", "max_lost", "line", "zone", "mot", "counts", "no_draw")


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that are for videos alone."""
    group = parser.add_argument_group("videos, streams (rtsp://...) and cameras (/dev/video0)")
    group.add_argument("--track", action="store_true", help="follow objects from frame to frame, with an id each")
    group.add_argument(
        "--max-lost",
        metavar="SECONDS",
        type=_read_seconds,
        help="time after which an object that is not seen is forgotten (default: 2)",
    )
    group.add_argument(
        "--line",
        metavar="X1,Y1,X2,Y2",
        type=_read_points,
        action="append",
        help="count tracked objects over a line, in pixels of the frame; may be given again",
    )
    group.add_argument(
        "--zone",
        metavar="X1,Y1,...",
        type=_read_points,
        action="append",
        help="count tracked objects that enter and leave a polygon; may be given again",
    )
    group.add_argument("--mot", metavar="FILE", help="also write tracked objects as text of MOTChallenge")
    group.add_argument("--counts", metavar="FILE", help="also write the counts over lines and zones as JSON")
    group.add_argument("--no-draw", action="store_true", help="do not draw the video into --out")


def check_video_arguments(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that do not go with what is predicted; set ``options.is_video``."""
    options.is_video = any(map(is_video, options.paths))
    if not options.is_video:
        typed = [f"--{name.replace('_', '-')}" for name in _OPTIONS if getattr(options, name)]
        if typed:
            parser.error(f"{typed[0]} is for videos, and there is none among {', '.join(options.paths[:3])}")
        return
    if len(options.paths) > 1:
        parser.error("videos are predicted one at a time: give one of them alone")
    if options.results is not None:
        parser.error("--results is for images: a video is one file; see --json, --mot and --coco")
    if options.annotations is not None:
        parser.error("--annotations is for images: --coco's file of a video has its own ids")


def run_video(options: argparse.Namespace, overrides: Mapping[str, str]) -> int:
    """Predict a video, and say what is in it; return the exit status."""
    from boxwright.cli.console import ConsoleObserver
    from boxwright.drawing.style import Drawings
    from boxwright.workflows.predict_video import VideoFiles, predict_video

    targets = {name: json_target(getattr(options, name)) for name in ("json", "mot", "coco", "counts")}
    result = predict_video(
        options.model,
        options.paths[0],
        threshold=options.threshold,
        track=_read_tracking(options) or False,
        out=None if options.no_draw else Drawings(options.out or DRAWINGS, read_style(options)),
        files=VideoFiles(**targets),
        batch_size=options.batch_size,
        device=read_compute(options, sides_std=options.sides_std),
        trusted=options.trust,
        observer=ConsoleObserver(),
        overrides=overrides,
    )
    show(_summary(result, options), error=any(map(is_piped, targets.values())))
    return 0


def _read_tracking(options: argparse.Namespace) -> TrackOptions | None:
    """Return what was typed about tracking; None where nothing was."""
    from boxwright.tracking.counting import CountLine, CountZone
    from boxwright.workflows.video_frames import TrackOptions

    if not any(getattr(options, name) for name in _OPTIONS if name != "no_draw"):
        return None
    lines = []
    for points in options.line or []:
        if len(points) != 2:
            raise ValueError(f"--line has two points, X1,Y1,X2,Y2, not {len(points)}")
        lines.append(CountLine(*points))
    zones = [CountZone(points) for points in options.zone or []]
    return TrackOptions(options.max_lost or TrackOptions.max_lost, lines, zones)


def _summary(result: VideoResult, options: argparse.Namespace) -> str:
    """Say what was predicted, and the counts, a line each."""
    noun, count = ("object", result.num_tracks) if result.num_tracks else ("detection", result.num_detections)
    objects = f"{count:,} {noun}{'' if count == 1 else 's'}"
    name = show_source(options.paths[0])
    frames = f"{result.num_frames:,} frames of {format_clock(result.seconds)}"
    files = {"as JSON lines": options.json, "as MOT text": options.mot, "in COCO's form": options.coco}
    written = [] if result.drawn is None else [f"drawn in {result.drawn} (MPEG-4 part 2)"]
    written += [f"{how} in {file}" for how, file in files.items() if file is not None]
    lines = [", ".join([f"{objects} in {frames} of {name}", *written])]
    if not result.num_detections:
        best = "there is no score at all" if result.best_score is None else f"the best score is {result.best_score:.2g}"
        lines[0] += f"; {best}, see --threshold"
    counts: dict[str, Any] = result.counts or {"lines": [], "zones": []}
    for number, one in enumerate(counts["lines"], 1):
        lines.append(f"line {number}: right {_count(one['right'])}; left {_count(one['left'])}")
    for number, one in enumerate(counts["zones"], 1):
        lines.append(
            f"zone {number}: entered {_count(one['entered'])}; exited {_count(one['exited'])}; inside {one['inside']}"
        )
    return "\n".join(lines)


def _count(by_name: Mapping[str, int]) -> str:
    total = sum(by_name.values())
    return f"{total} ({', '.join(f'{count} {name}' for name, count in by_name.items())})" if by_name else "0"


def _read_seconds(text: str) -> float:
    return _read_number(text, lambda value: 0 < value < math.inf, "a number of seconds above 0")


def _read_points(text: str) -> tuple[tuple[float, float], ...]:
    """Read points as x1,y1,x2,y2,..."""
    expected = "numbers as X1,Y1,X2,Y2"
    values = [_read_number(one, math.isfinite, expected) for one in text.split(",")]
    if len(values) % 2:
        raise argparse.ArgumentTypeError(f"{expected}, two for each point, not {text!r}")
    return tuple(zip(values[::2], values[1::2], strict=True))


def _read_number(text: str, is_allowed: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_allowed(value):
        raise argparse.ArgumentTypeError(f"{expected}, not {text!r}")
    return value
