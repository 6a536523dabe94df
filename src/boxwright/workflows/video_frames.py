"""Frames of a video on their way through a model and a tracker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.tracking.counting import CountLine, CountZone
from boxwright.tracking.tracker import Tracker, TrackingOptions
from boxwright.workflows.exported import to_tensors
from boxwright.workflows.models import load_predictor
from boxwright.workflows.observer import Observer
from boxwright.workflows.streams import StreamOptions, stream_images
from boxwright_runtime import Detections, Runtime
from boxwright_runtime.arrays import to_numpy
from boxwright_runtime.streaming import Threshold
from boxwright_runtime.video_stream import VideoStream

VIDEO_THRESHOLD = 0.3
"""Least score of detections in videos."""

_LEAST_WEAK = 0.1
"""Least score of detections that only go on with objects, as in ByteTrack."""


@dataclass(frozen=True)
class TrackOptions:
    """Tracking in a video, and counts over it.

    Args:
        max_lost: seconds after which an object that is not seen is forgotten.
        lines: over which objects are counted.
        zones: in which they are.
    """

    max_lost: float = TrackingOptions.max_lost
    lines: Sequence[CountLine] = ()
    zones: Sequence[CountZone] = ()


@dataclass(frozen=True, eq=False)
class PredictedFrame:
    """A frame, and what is in it.

    Args:
        number: of the frame, from 0; those that were dropped are counted.
        time: in seconds since the first frame.
        size: (height, width) in pixels.
        detections: in pixels of the frame; of tracked objects with their voted classes.
        ids: of tracked objects, ascending; None where nothing is tracked.
        ended: ids of objects that will not come again.
        image: RGB, where images are kept.
    """

    number: int
    time: float
    size: tuple[int, int]
    detections: Detections
    ids: tuple[int, ...] | None = None
    ended: tuple[int, ...] = ()
    image: UInt8[np.ndarray, "h w 3"] | None = None


class _Waiting(NamedTuple):
    """A frame whose detections are not there yet; with its image where images are kept."""

    number: int
    time: float
    size: tuple[int, int]
    image: UInt8[np.ndarray, "h w 3"] | None


class VideoPrediction(Iterator[PredictedFrame]):
    """Frames of a video as they are predicted, in order.

    Args:
        predictor: a detector or an exported file.
        video: its frames.
        compute: precision and tiles.
        threshold: least score; or that of each class, by its label.
        options: batches, and whether images are kept; of live videos one frame at a time where None.
        tracking: None for detections of each frame by itself.

    Raises:
        ValueError: the model is a classifier.
    """

    def __init__(
        self,
        predictor: Detector | Runtime,
        video: VideoStream,
        compute: ComputeOptions,
        *,
        threshold: float | tuple[float, ...],
        options: StreamOptions,
        tracking: TrackOptions | None,
    ) -> None:
        if predictor.task != "detection":
            raise ValueError(f"videos are for detectors, and this model is for {predictor.task}")
        self.video, self.threshold = video, threshold
        self.best_score: float | None = None
        self.categories = predictor.metadata.categories if isinstance(predictor, Runtime) else predictor.categories
        if options.batch_size is None and video.is_live:
            options = options._replace(batch_size=1)
        self.tracker = None if tracking is None else Tracker(_tracking_options(threshold, tracking))
        self._waiting: deque[_Waiting] = deque()
        self._stream = stream_images(predictor, self._images(), compute, options)
        self._keep_images = options.keep_images
        self._frames = self._predict()

    def __next__(self) -> PredictedFrame:
        return next(self._frames)

    def close(self) -> None:
        """Leave the rest of the video; nothing is decoded any more."""
        self._frames.close()
        self._stream.close()
        self.video.close()

    def _images(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        for frame in self.video:
            height, width = frame.image.shape[:2]
            kept = frame.image if self._keep_images else None
            self._waiting.append(_Waiting(frame.number, frame.time, (height, width), kept))
            yield frame.image

    def _predict(self) -> Generator[PredictedFrame]:
        with closing(self.video), closing(self._stream):
            for detections in self._stream:
                if len(detections):
                    self.best_score = max(self.best_score or 0.0, float(detections.scores.max()))
                frame = self._waiting.popleft()
                shown, ids, ended = self._follow(frame.time, detections)
                yield PredictedFrame(frame.number, frame.time, frame.size, shown, ids, ended, frame.image)

    def _follow(
        self, time: float, detections: Detections
    ) -> tuple[Detections, tuple[int, ...] | None, tuple[int, ...]]:
        """Return the detections that are shown, the ids of tracked ones, and those that have ended."""
        if self.tracker is None:
            return to_tensors(detections.above(self.threshold)), None, ()
        columns = map(to_numpy, (detections.boxes, detections.scores, detections.labels))
        tracked = self.tracker.update(time, *columns)
        shown = replace(to_tensors(detections[tracked.indices]), labels=torch.from_numpy(tracked.labels))
        return shown, tuple(tracked.ids.tolist()), tracked.ended


def stream_video(
    model: str | Path | Detector | Runtime,
    source: str | Path,
    *,
    threshold: Threshold | None = None,
    track: bool | TrackOptions = False,
    keep_images: bool = False,
    batch_size: int | None = None,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> VideoPrediction:
    """Detect objects in a video, frame by frame, and follow them.

    Args:
        model: any source that ``boxwright.load`` takes, a detector, an exported file or a ``Runtime``.
        source: path of a video, address of a stream (rtsp://...), or a camera (/dev/video0).
        threshold: least score, 0.3 where None; ``tuned`` takes that of each class, of ``tune_thresholds``.
        track: give each object an id; lines and zones of the options are for ``predict_video``.
        keep_images: give each frame's image too.
        batch_size: frames at a time, at most; where None, 1 of a live video, else as for ``predict``.
        device: as for ``predict``.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes, as of lost connections; they become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``.

    Returns:
        an iterator of ``PredictedFrame``; ``close`` ends it early.

    Raises:
        FileNotFoundError: there is no such model or video.
        ValueError: no model, no video, or an argument is out of range.
    """
    observer, compute = observer or Observer(), ComputeOptions.of(device)
    tracking = (TrackOptions() if track else None) if isinstance(track, bool) else track
    check_scores(threshold, batch_size, tracking)
    predictor = load_predictor(model, device=compute, trusted=trusted, observer=observer, overrides=overrides)
    options = StreamOptions(batch_size, keep_images=keep_images)
    return open_video_prediction(predictor, source, compute, threshold, options, tracking, observer)


def open_video_prediction(
    predictor: Detector | Runtime,
    source: str | Path,
    compute: ComputeOptions,
    threshold: Threshold | None,
    options: StreamOptions,
    tracking: TrackOptions | None,
    observer: Observer,
    is_asked_to_stop: Callable[[], bool] = lambda: False,
) -> VideoPrediction:
    """Open a video for a model that is loaded; see ``stream_video``.

    Args:
        predictor: a detector or an exported file.
        source: of the video.
        compute: precision and tiles.
        threshold: least score.
        options: batches, and whether images are kept.
        tracking: None for detections of each frame by itself.
        observer: hears of lost connections.
        is_asked_to_stop: is asked from time to time; frames end where it says so.
    """
    chosen = predictor.thresholds() if threshold == "tuned" else threshold
    least = VIDEO_THRESHOLD if chosen is None else chosen
    video = VideoStream(source, note=observer.note, is_asked_to_stop=is_asked_to_stop)
    try:
        return VideoPrediction(predictor, video, compute, threshold=least, options=options, tracking=tracking)
    except BaseException:
        video.close()
        raise


def check_scores(threshold: Threshold | None, batch_size: int | None, tracking: TrackOptions | None) -> None:
    """Make sure that numbers are in range, before a model is loaded.

    Raises:
        ValueError: one is not.
    """
    least = VIDEO_THRESHOLD if threshold in (None, "tuned") else threshold
    if isinstance(least, str) or least is None or not 0 <= least <= 1:
        raise ValueError(f"threshold is between 0 and 1, or tuned, not {threshold}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    if tracking is not None:
        _tracking_options(least, tracking)


def _tracking_options(threshold: float | tuple[float, ...], tracking: TrackOptions) -> TrackingOptions:
    weak = min(_LEAST_WEAK, float(np.min(threshold)))
    return TrackingOptions(threshold=threshold, weak=weak, max_lost=tracking.max_lost)
