"""Prediction of videos: detections of every frame, tracked, counted, drawn and listed."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from boxwright.data.image_check import ProgressCallback
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.drawing.style import Drawings, DrawingStyle
from boxwright.drawing.tracks import Trails, draw_tracked
from boxwright.drawing.video_file import VideoFile
from boxwright.files import check_folder, check_target, write_text
from boxwright.tracking.counting import CrossingCounts
from boxwright.training.interrupt import Interrupted, Stop, stop_on_interrupt
from boxwright.workflows.models import load_predictor
from boxwright.workflows.observer import Observer
from boxwright.workflows.streams import StreamOptions
from boxwright.workflows.video_files import CocoVideo, FileOfFrames, JsonLines, MotText, write_files
from boxwright.workflows.video_frames import (
    PredictedFrame,
    TrackOptions,
    VideoPrediction,
    check_scores,
    open_video_prediction,
)
from boxwright_runtime import Runtime
from boxwright_runtime.streaming import Threshold
from boxwright_runtime.video_names import is_camera, is_stream_address, show_source, video_stem

ENDLESS_SUFFIX = ".mkv"
"""Of drawings of streams and cameras: the index of an MP4 file is in memory until its end, and grows for ever."""


@dataclass(frozen=True)
class VideoFiles:
    """Files for the results of a video; each is written as frames come, and is there once it is complete.

    Args:
        json: a line of JSON for each frame.
        mot: text of MOTChallenge, of tracked objects.
        coco: COCO's form for videos.
        counts: counts over lines and zones, as JSON.
    """

    json: str | Path | None = None
    mot: str | Path | None = None
    coco: str | Path | None = None
    counts: str | Path | None = None

    def check(self, tracking: TrackOptions | None) -> None:
        """Make sure that all can be written.

        Raises:
            ValueError: one cannot; or it is about tracked objects, and nothing is tracked.
        """
        for path in (self.json, self.mot, self.coco, self.counts):
            if path is not None:
                check_target(Path(path))
        if self.mot is not None and tracking is None:
            raise ValueError("the text of MOTChallenge is of tracked objects: track them too")
        if self.counts is not None and not (tracking and (tracking.lines or tracking.zones)):
            raise ValueError("counts are over lines and zones: give some")


@dataclass(eq=False)
class VideoResult:
    """Summary of a video that was predicted.

    Args:
        threshold: least score; of each class, by its label, where they were tuned.
        num_frames: that were predicted.
        num_detections: in all frames.
        num_tracks: objects that were tracked.
        best_score: highest score of all, also below the threshold; None where there was no detection at all.
        seconds: from the first frame to the last one.
        dropped: frames of a live video that came too fast.
        damaged: packets that could not be decoded, and frames that were decoded with errors.
        reconnected: times that a lost connection was taken up again.
        early_end: what is missing at the end of a truncated file, else None.
        drawn: the drawn video, where there is one.
        counts: over lines and zones; see ``CrossingCounts.to_dict``.
    """

    threshold: float | tuple[float, ...] = 0.3
    num_frames: int = 0
    num_detections: int = 0
    num_tracks: int = 0
    best_score: float | None = None
    seconds: float = 0.0
    dropped: int = 0
    damaged: int = 0
    reconnected: int = 0
    early_end: str | None = None
    drawn: Path | None = None
    counts: dict[str, Any] | None = None


def predict_video(
    model: str | Path | Detector | Runtime,
    source: str | Path,
    *,
    threshold: Threshold | None = None,
    track: bool | TrackOptions = False,
    out: str | Path | Drawings | None = None,
    files: VideoFiles | None = None,
    batch_size: int | None = None,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> VideoResult:
    """Detect objects in a video, follow and count them, draw them, and list them.

    Ctrl-C, and SIGTERM, end it after a frame: what was done until then is written, and ``Interrupted`` is raised.

    Args:
        model: any source that ``boxwright.load`` takes, a detector, an exported file or a ``Runtime``.
        source: path of a video, address of a stream (rtsp://...), or a camera (/dev/video0).
        threshold: least score, 0.3 where None; ``tuned`` takes that of each class, of ``tune_thresholds``.
        track: give each object an id; ``TrackOptions`` say for how long, and over which lines and zones to count.
        out: folder for the drawn video, with its style where it is ``Drawings``; nothing is drawn where None.
        files: for the results.
        batch_size: frames at a time, at most; where None, 1 of a live video, else as for ``predict``.
        device: as for ``predict``.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and how far the prediction is; notes become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``.

    Raises:
        FileNotFoundError: there is no such model or video.
        ValueError: no model, no video, or an argument is out of range.
        Interrupted: a signal has ended it; a ``KeyboardInterrupt``.
    """
    observer, compute, files = observer or Observer(), ComputeOptions.of(device), files or VideoFiles()
    tracking = (TrackOptions() if track else None) if isinstance(track, bool) else track
    drawings = Drawings(out) if isinstance(out, str | Path) else out
    check_scores(threshold, batch_size, tracking)
    files.check(tracking)
    target = None if drawings is None else _drawn_path(Path(drawings.folder), source)
    predictor = load_predictor(model, device=compute, trusted=trusted, observer=observer, overrides=overrides)
    options = StreamOptions(batch_size, keep_images=target is not None)
    with stop_on_interrupt() as stop, observer.track("predicting") as progress:
        frames = open_video_prediction(
            predictor, source, compute, threshold, options, tracking, observer, lambda: stop.asked
        )
        run = _Run(frames, tracking, progress, VideoResult(frames.threshold, drawn=target), stop)
        try:
            run.begin()
            write_files(_list_files(files, run, DrawingStyle() if drawings is None else drawings.style), run.take)
        finally:
            frames.close()
        result = run.finish(files.counts)
    _note_faults(result, source, observer)
    if stop.number is not None:
        observer.note(f"stopped after {result.num_frames:,} frames; what was done until then is written")
        raise Interrupted(stop.number)
    return result


class _Run:
    """Frames on their way into files.

    Args:
        frames: of the video.
        tracking: lines and zones to count over.
        progress: called after each frame.
        result: is filled.
        stop: a wish to stop.
    """

    def __init__(
        self,
        frames: VideoPrediction,
        tracking: TrackOptions | None,
        progress: ProgressCallback,
        result: VideoResult,
        stop: Stop,
    ) -> None:
        self.frames, self.progress, self.result, self.stop = frames, progress, result, stop
        self.counts = CrossingCounts() if tracking is None else CrossingCounts(tracking.lines, tracking.zones)
        self._first: PredictedFrame | None = None

    def begin(self) -> None:
        """Predict the first frame, before there are files.

        Raises:
            ValueError: there is none, or a line or a zone lies outside the frame.
            Interrupted: a signal came before.
        """
        self._first = next(self.frames, None)
        if self.stop.number is not None:
            raise Interrupted(self.stop.number)
        if self._first is None:
            raise ValueError(f"{show_source(self.frames.video.source)}: no frame of this video could be read")
        self.counts.check_size(self._first.size[1], self._first.size[0])

    def take(self, write: Callable[[PredictedFrame], None]) -> None:
        """Take all frames."""
        result = self.result
        first, self._first = self._first, None
        assert first is not None
        for frame in chain((first,), self.frames):
            if frame.ids is not None:
                labels, boxes = frame.detections.labels.tolist(), frame.detections.boxes
                self.counts.update(frame.ids, labels, boxes, frame.ended)
                result.num_tracks = max((result.num_tracks, *frame.ids))
            result.num_frames += 1
            result.num_detections += len(frame.detections)
            result.seconds = frame.time
            write(frame)
            self.progress(result.num_frames, max(self.frames.video.expected, result.num_frames))

    def finish(self, target: str | Path | None) -> VideoResult:
        """Return the result, with what the video tells at its end.

        Args:
            target: file for the counts over lines and zones.
        """
        video, result = self.frames.video, self.result
        result.dropped, result.damaged, result.reconnected = video.dropped, video.damaged, video.reconnected
        result.early_end, result.best_score = video.early_end, self.frames.best_score
        names = [one.name for one in self.frames.categories]
        result.counts = self.counts.to_dict(names) if self.counts else None
        if target is not None:
            write_text(Path(target), json_format.dumps(result.counts, indent=1) + "\n")
        return result


class _DrawnVideo:
    """Frames that are drawn into a video.

    Args:
        run: whose frames they are.
        style: of the drawings.
        path: of the file.
    """

    def __init__(self, run: _Run, style: DrawingStyle, path: Path) -> None:
        video = run.frames.video
        assert run.result.drawn is not None
        container = {".mp4": "mp4", ENDLESS_SUFFIX: "matroska"}[run.result.drawn.suffix]
        self._file = VideoFile(path, container, video.rate)
        self._trails, self._counts, self._style = Trails(), run.counts, style

    def __enter__(self) -> _DrawnVideo:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def write(self, frame: PredictedFrame) -> None:
        """Draw a frame."""
        assert frame.image is not None
        if frame.ids is not None:
            self._trails.update(frame.time, frame.ids, frame.detections.boxes)
        drawn = draw_tracked(
            frame.image, frame.detections, frame.ids, trails=self._trails, counts=self._counts, style=self._style
        )
        self._file.write(frame.time, drawn)


def _list_files(files: VideoFiles, run: _Run, style: DrawingStyle) -> list[FileOfFrames]:
    listed = []
    if files.json is not None:
        listed.append(FileOfFrames(Path(files.json), JsonLines))
    if files.mot is not None:
        listed.append(FileOfFrames(Path(files.mot), MotText))
    if files.coco is not None:
        write_coco = partial(CocoVideo, name=video_stem(run.frames.video.source), categories=run.frames.categories)
        listed.append(FileOfFrames(Path(files.coco), write_coco))
    if run.result.drawn is not None:
        listed.append(FileOfFrames(run.result.drawn, partial(_DrawnVideo, run, style)))
    return listed


def _drawn_path(folder: Path, source: str | Path) -> Path:
    """Return where a video is drawn to.

    Raises:
        ValueError: the folder cannot be written, or it is the video itself.
    """
    check_folder(folder)
    text = str(source)
    is_endless = is_stream_address(text) or is_camera(text)
    path = folder / f"{video_stem(source)}{ENDLESS_SUFFIX if is_endless else '.mp4'}"
    if not is_endless and path.resolve() == Path(source).resolve():
        raise ValueError(f"{path} is the video itself, and drawing would overwrite it; give another --out")
    check_target(path)
    return path


def _note_faults(result: VideoResult, source: str | Path, observer: Observer) -> None:
    """Note what is missing of a video."""
    name = show_source(source)
    if result.dropped:
        observer.note(f"{name}: {result.dropped:,} frames came too fast and were dropped")
    if result.damaged:
        observer.note(f"{name}: {result.damaged:,} packets or frames are damaged")
    if result.early_end is not None:
        observer.note(f"{name} is truncated: {result.early_end}; what could be read is there")
