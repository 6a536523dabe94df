"""ByteTrack, in seconds: detections of one frame after the other to objects with ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Float64, Int64

from boxwright.tracking.assignment import assign, overlap_of_pairs
from boxwright.tracking.motion import States, begin_states, correct_states, keep_height, predict_states, state_boxes

_LEAST_WEIGHTED, _LEAST_WEAK, _LEAST_NEW, _DUPLICATE = 0.2, 0.5, 0.3, 0.85
"""Least IoU by score with a detection; IoU with a weak one; IoU by score of a track that is not confirmed; IoU from
which on a track and a lost one are one object."""


_USUAL_THRESHOLD = 0.5
"""Threshold down to which scores are those that ByteTrack's limits are meant for."""


@dataclass(frozen=True)
class TrackingOptions:
    """Scores and times of tracking.

    Args:
        threshold: least score of detections that tracks are looked for first; one for all classes, or one for each, by
            its label. Tracks begin 0.1 above it; a fifth of it below 0.5, and halfway to 1 above 0.8.
        weak: least score of others, which only go on with tracks that are there.
        max_lost: seconds after which an object that is not seen is forgotten.

    Raises:
        ValueError: an option is out of range.
    """

    threshold: float | Sequence[float] = 0.5
    weak: float = 0.1
    max_lost: float = 2.0

    def __post_init__(self) -> None:
        thresholds = np.atleast_1d(np.asarray(self.threshold, dtype=np.float64))
        if not ((thresholds >= 0) & (thresholds <= 1)).all() or not 0 <= self.weak <= 1:
            raise ValueError(f"scores are in [0, 1], not {self.threshold} and {self.weak}")
        if not 0 < self.max_lost < float("inf"):
            raise ValueError(f"max_lost is a number of seconds above 0, not {self.max_lost}")


class TrackedFrame(NamedTuple):
    """Objects of a frame.

    Args:
        indices: of their detections in the frame.
        ids: of the objects, ascending, from 1.
        labels: class of each object, by the votes of all its detections with their scores.
        ended: ids of objects that will not come again.
    """

    indices: Int64[np.ndarray, " n"]
    ids: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    ended: tuple[int, ...]


@dataclass(eq=False)
class _Tracks:
    """Tracks, a row each.

    Args:
        states: of their motion.
        votes: sums of scores by label.
        ids: 0 where none has been shown yet.
        begun: time of the first detection.
        seen: time of the last one.
        confirmed: two frames in a row have seen it, or it is of the first frame.
        lost: the last frame has not seen it.
        matches: index of the detection in this frame; -1 where there is none.
    """

    states: States
    votes: Float64[np.ndarray, "n c"]
    ids: Int64[np.ndarray, " n"]
    begun: Float64[np.ndarray, " n"]
    seen: Float64[np.ndarray, " n"]
    confirmed: Bool[np.ndarray, " n"]
    lost: Bool[np.ndarray, " n"]
    matches: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: npt.NDArray[Any]) -> _Tracks:
        """Select tracks by a mask or by their indices."""
        return _Tracks(*(getattr(self, one.name)[rows] for one in fields(self)))

    def join(self, others: _Tracks) -> _Tracks:
        """Put others behind these."""
        if not len(others):
            return self
        return _Tracks(*(np.concatenate((getattr(self, one.name), getattr(others, one.name))) for one in fields(self)))


class Tracker:
    """Follows objects from frame to frame, with an id each: 1, 2, 3, ..., in the order in which they are shown first.

    Motion is predicted in seconds, so that the rate may change and frames may be missing. An object is shown once two
    frames in a row have detected it, or the first frame of all. Memory is that of the objects of the last ``max_lost``
    seconds.

    **Source**: Zhang et al., "ByteTrack" (2022), algorithm 1, and the authors' code. At 30 frames per second matches
    and states are those of their code; but ids are given where an object is first shown, so that none is left out,
    classes are voted and not taken from the last detection, and a track that was forgotten does not come back.

    Args:
        options: of scores and times.
    """

    def __init__(self, options: TrackingOptions | None = None) -> None:
        self.options = options or TrackingOptions()
        self._time: float | None = None
        self._num_ids = 0
        self._tracks = _begin(np.empty((0, 4)), np.empty(0), np.empty(0, dtype=np.int64), 0.0)

    def __len__(self) -> int:
        """Count the objects that are remembered."""
        return len(self._tracks)

    @property
    def states(self) -> dict[int, Float64[np.ndarray, "4 5"]]:
        """Motion of the objects that were shown, by their ids."""
        return {int(one): state for one, state in zip(self._tracks.ids, self._tracks.states, strict=True) if one}

    def update(self, time: float, boxes: Any, scores: Any, labels: Any) -> TrackedFrame:
        """Take the detections of the next frame.

        Args:
            time: of the frame, in seconds.
            boxes: corners (n, 4), as an array or anything that becomes one; a box without an area is left out.
            scores: in [0, 1].
            labels: of the classes.

        Raises:
            ValueError: the time is before that of the frame before, or the shapes do not agree.
        """
        detections = _Detections.read(boxes, scores, labels, self.options)
        is_first, seconds = self._time is None, 0.0 if self._time is None else time - self._time
        if not (seconds >= 0 and np.isfinite(time)):
            raise ValueError(f"frames come in the order of their times, and {time} s is not after {self._time} s")
        self._time = time
        before = self._tracks
        tracks = before.select(time - before.seen <= self.options.max_lost)
        tracks.matches[:] = -1
        _predict(tracks, seconds)
        rest = _match(tracks, detections)
        rows = tracks.matches >= 0
        self._follow(tracks, rows, detections, time)
        # A track that only one frame has seen goes with the first one that does not.
        tracks.lost |= ~rows
        tracks = tracks.select(rows | tracks.confirmed)
        new = rest[detections.scores[rest] >= detections.least_new[rest]]
        begun = _begin(detections.boxes[new], detections.scores[new], detections.labels[new], time)
        begun.matches[:], begun.confirmed[:] = new, is_first
        tracks = _without_duplicates(_widen(tracks, begun).join(_widen(begun, tracks)))
        self._tracks, shown = tracks, self._show(tracks)
        ended = set(before.ids.tolist()) - set(tracks.ids.tolist()) - {0}
        return TrackedFrame(*shown, tuple(sorted(ended)))

    def _follow(self, tracks: _Tracks, rows: Bool[np.ndarray, " n"], detections: _Detections, time: float) -> None:
        """Let tracks follow the detections that they are matched with."""
        matches = tracks.matches[rows]
        tracks.states[rows] = correct_states(tracks.states[rows], detections.boxes[matches])
        tracks.seen[rows], tracks.lost[rows], tracks.confirmed[rows] = time, False, True
        most = int(detections.labels[matches].max(initial=-1)) + 1
        tracks.votes = _pad_columns(tracks.votes, most)
        tracks.votes[np.flatnonzero(rows), detections.labels[matches]] += detections.scores[matches]

    def _show(self, tracks: _Tracks) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Give ids to objects that are shown for the first time; return indices, ids and labels of all that are."""
        shown = tracks.confirmed & ~tracks.lost
        new = np.flatnonzero(shown & (tracks.ids == 0))
        tracks.ids[new] = self._num_ids + 1 + np.arange(len(new))
        self._num_ids += len(new)
        rows = np.flatnonzero(shown)
        rows = rows[np.argsort(tracks.ids[rows])]
        return tracks.matches[rows], tracks.ids[rows], _voted(tracks.votes[rows])


class _Detections(NamedTuple):
    """Detections of a frame.

    Args:
        boxes: corners.
        scores: in their own precision.
        labels: of their classes.
        weights: of their IoU with tracks: the scores, raised where the threshold is low, for ByteTrack's least IoU by
            score would let no object with a low score go on.
        strong: indices of those above the threshold.
        weak: indices of others that may go on with tracks.
        least_new: score from which on each begins a track.
    """

    boxes: Float64[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    strong: Int64[np.ndarray, " s"]
    weak: Int64[np.ndarray, " w"]
    least_new: Float[np.ndarray, " n"]

    @classmethod
    def read(cls, boxes: Any, scores: Any, labels: Any, options: TrackingOptions) -> _Detections:
        corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        each, classes = np.asarray(scores), np.asarray(labels, dtype=np.int64)
        each = each if each.dtype.kind == "f" else each.astype(np.float64)
        if each.shape != (len(corners),) or classes.shape != each.shape:
            raise ValueError(
                f"{len(corners)} boxes need a score and a label each, not {each.shape} and {classes.shape}"
            )
        sides = corners[:, 2:] - corners[:, :2]
        valid = np.isfinite(corners).all(1) & (sides > 0).all(1) & np.isfinite(each) & (classes >= 0)
        # In the precision of the scores: one that is equal is above.
        threshold = np.asarray(options.threshold, dtype=each.dtype)
        least = threshold[np.where(valid, classes, 0)] if threshold.ndim else np.full(each.shape, threshold)
        weights = np.minimum(each * np.maximum(_USUAL_THRESHOLD / np.maximum(least, 1e-6), 1), 1)
        new = np.minimum(least + 0.1 * np.minimum(least / _USUAL_THRESHOLD, 1), (1 + least) / 2)
        strong, weak = valid & (each >= least), valid & (each < least) & (each > options.weak)
        return cls(
            corners, each, classes, weights, np.flatnonzero(strong), np.flatnonzero(weak), new.astype(each.dtype)
        )


def _begin(
    boxes: Float64[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], time: float
) -> _Tracks:
    """Tracks that begin with detections."""
    count = len(boxes)
    votes = np.zeros((count, int(labels.max(initial=-1)) + 1))
    votes[np.arange(count), labels] = scores
    times = np.full(count, float(time))
    numbers = np.zeros(count, dtype=np.int64)
    flags = np.zeros(count, dtype=np.bool_)
    return _Tracks(begin_states(boxes), votes, numbers, times, times.copy(), flags, flags.copy(), numbers - 1)


def _predict(tracks: _Tracks, seconds: float) -> None:
    """Predict the motion of tracks; one that a single frame has seen is at rest, as in the authors' code."""
    lost = tracks.states[tracks.lost]
    keep_height(lost)
    tracks.states[tracks.lost] = lost
    tracks.states[tracks.confirmed] = predict_states(tracks.states[tracks.confirmed], seconds)


def _match(tracks: _Tracks, detections: _Detections) -> Int64[np.ndarray, " r"]:
    """Match tracks with detections: strong ones, then those that are not lost with weak ones, then new tracks.

    Returns:
        indices of strong detections that are left.
    """
    boxes = state_boxes(tracks.states)

    def match(rows: npt.NDArray[Any], columns: npt.NDArray[Any], least: float, *, weighted: bool) -> npt.NDArray[Any]:
        if not (len(rows) and len(columns)):
            return columns
        agreement = overlap_of_pairs(boxes[rows], detections.boxes[columns])
        if weighted:
            agreement *= detections.weights[columns]
        chosen_rows, chosen_columns = assign(agreement, least)
        tracks.matches[rows[chosen_rows]] = columns[chosen_columns]
        return np.delete(columns, chosen_columns)

    confirmed, new = np.flatnonzero(tracks.confirmed), np.flatnonzero(~tracks.confirmed)
    rest = match(confirmed, detections.strong, _LEAST_WEIGHTED, weighted=True)
    unmatched = tracks.confirmed & ~tracks.lost & (tracks.matches < 0)
    match(np.flatnonzero(unmatched), detections.weak, _LEAST_WEAK, weighted=False)
    return match(new, rest, _LEAST_NEW, weighted=True)


def _without_duplicates(tracks: _Tracks) -> _Tracks:
    """Leave out the younger one of a track and a lost one that are at the same position."""
    if not tracks.lost.any():
        return tracks
    boxes, ages = state_boxes(tracks.states), tracks.seen - tracks.begun
    seen, lost = np.flatnonzero(~tracks.lost), np.flatnonzero(tracks.lost)
    rows, columns = np.nonzero(overlap_of_pairs(boxes[seen], boxes[lost]) > _DUPLICATE)
    of_seen, of_lost = seen[rows], lost[columns]
    kept = np.ones(len(tracks), dtype=np.bool_)
    kept[np.where(ages[of_seen] > ages[of_lost], of_lost, of_seen)] = False
    return tracks.select(kept)


def _widen(tracks: _Tracks, others: _Tracks) -> _Tracks:
    """Give votes as many columns as those of others have."""
    return replace(tracks, votes=_pad_columns(tracks.votes, others.votes.shape[1]))


def _pad_columns(votes: Float64[np.ndarray, "n c"], count: int) -> Float64[np.ndarray, "n d"]:
    missing = count - votes.shape[1]
    return np.pad(votes, ((0, 0), (0, missing))) if missing > 0 else votes


def _voted(votes: Float64[np.ndarray, "n c"]) -> Int64[np.ndarray, " n"]:
    return votes.argmax(1) if len(votes) else np.empty(0, dtype=np.int64)
