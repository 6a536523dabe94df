"""Objects that cross, hide and come back, at rates that change, keep their ids."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest

from boxwright.tracking.assignment import assign, overlap_of_pairs
from boxwright.tracking.tracker import TrackedFrame, Tracker, TrackingOptions
from crossing_objects import Crossings, SeenFrame, frame_times, identity_f1


def follow(frames: list[SeenFrame], tracker: Tracker, score: float = 0.9) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and boxes of each frame."""
    tracked = []
    for one in frames:
        count = len(one.boxes)
        shown = tracker.update(one.time, one.boxes, np.full(count, score), one.numbers % 3)
        tracked.append((shown.ids, one.boxes[shown.indices]))
    return tracked


def box(x: float, y: float = 0.0, side: float = 40.0) -> list[float]:
    return [x, y, x + side, y + side]


def update(tracker: Tracker, time: float, *boxes: list[float], scores: list[float] | None = None) -> TrackedFrame:
    return tracker.update(time, boxes or np.empty((0, 4)), scores or [0.9] * len(boxes), [0] * len(boxes))


@pytest.mark.parametrize("seed", range(3))
def test_forty_objects_that_cross_and_hide_while_the_rate_changes(seed: int) -> None:
    times = frame_times((300, 30), (300, 10), (150, 30))
    frames = list(Crossings(np.random.default_rng(seed), 40).frames(times))
    crossings = sum((np.triu(overlap_of_pairs(one.boxes, one.boxes), 1) > 0.1).any() for one in frames)
    assert crossings > 300
    tracked = follow(frames, Tracker())
    assert identity_f1(frames, tracked) >= 0.95
    ids = np.unique(np.concatenate([some for some, _ in tracked]))
    assert ids.tolist() == list(range(1, len(ids) + 1))


def test_motion_in_frames_would_lose_objects_where_the_rate_changes() -> None:
    frames = list(Crossings(np.random.default_rng(0), 40).frames(frame_times((300, 30), (300, 10))))
    in_frames = [one._replace(time=index / 30) for index, one in enumerate(frames)]
    right = identity_f1(frames, follow(frames, Tracker()))
    assert right > identity_f1(frames, follow(in_frames, Tracker())) + 0.01


def test_ids_are_given_where_an_object_is_shown() -> None:
    tracker = Tracker()
    assert update(tracker, 0.0, box(0)).ids.tolist() == [1]
    # Seen once, and never again: no id is lost by it.
    assert update(tracker, 0.1, box(0), box(500)).ids.tolist() == [1]
    assert update(tracker, 0.2, box(0), box(900)).ids.tolist() == [1]
    shown = update(tracker, 0.3, box(900), box(0))
    assert shown.ids.tolist() == [1, 2]
    assert shown.indices.tolist() == [1, 0]


def test_a_lost_object_comes_back_in_time_and_not_later() -> None:
    for gap, expected in ((1.9, [1]), (2.1, [])):
        tracker = Tracker()
        update(tracker, 0.0, box(0))
        update(tracker, 0.1, box(0))
        assert update(tracker, 0.2).ids.tolist() == []
        shown = update(tracker, 0.1 + gap, box(0))
        assert shown.ids.tolist() == expected
        assert shown.ended == (() if expected else (1,))


def test_what_was_lost_is_forgotten() -> None:
    tracker = Tracker(TrackingOptions(max_lost=0.5))
    update(tracker, 0.0, box(0), box(100))
    assert update(tracker, 0.4, box(100)).ended == ()
    assert update(tracker, 0.6, box(100)).ended == (1,)
    assert len(tracker) == 1
    assert set(tracker.states) == {2}


def test_weak_detections_go_on_with_objects_and_begin_none() -> None:
    tracker = Tracker()
    update(tracker, 0.0, box(0))
    assert update(tracker, 0.1, box(2), box(300), scores=[0.2, 0.2]).ids.tolist() == [1]
    assert update(tracker, 0.2, box(4), box(300), scores=[0.2, 0.2]).ids.tolist() == [1]
    # Weaker than any that count.
    assert update(tracker, 0.3, box(6), scores=[0.1]).ids.tolist() == []


@pytest.mark.parametrize(("score", "shown"), [(0.59, []), (0.6, [1])])
def test_objects_begin_a_tenth_above_the_threshold(score: float, shown: list[int]) -> None:
    assert update(Tracker(TrackingOptions(threshold=0.5)), 0.0, box(0), scores=[score]).ids.tolist() == shown


def test_thresholds_of_classes() -> None:
    tracker = Tracker(TrackingOptions(threshold=(0.2, 0.95)))
    for time in (0.0, 0.1):
        shown = tracker.update(time, [box(0), box(100), box(200)], [0.4, 0.9, 0.98], [0, 1, 1])
    assert shown.indices.tolist() == [0, 2]


def test_classes_are_voted() -> None:
    tracker = Tracker()
    shown = [
        int(tracker.update(step / 10, [box(step)], [score], [label]).labels[0])
        for step, (score, label) in enumerate([(0.9, 3), (0.6, 0), (0.8, 0), (0.9, 3), (0.7, 5)])
    ]
    assert shown == [3, 3, 0, 3, 3]


def test_hostile_detections_are_left_out() -> None:
    boxes = [box(0), [5, 5, 5, 9], [9, 9, 3, 3], [0, 0, np.nan, 5], [0, 0, np.inf, 5], box(200)]
    scores = [0.9, 0.9, 0.9, 0.9, 0.9, np.nan]
    tracker = Tracker()
    for time in (0.0, 0.1):
        assert tracker.update(time, boxes, scores, [0] * 6).indices.tolist() == [0]
    assert tracker.update(0.2, np.empty((0, 4)), [], []).ids.tolist() == []


def test_a_frame_may_come_twice_and_none_from_before() -> None:
    tracker = Tracker()
    assert update(tracker, 1.0, box(0)).ids.tolist() == [1]
    assert update(tracker, 1.0, box(0)).ids.tolist() == [1]
    with pytest.raises(ValueError, match=r"0\.9 s is not after 1\.0 s"):
        update(tracker, 0.9, box(0))
    with pytest.raises(ValueError, match="2 boxes need a score and a label each"):
        tracker.update(2.0, [box(0), box(9)], [0.5], [0])


@pytest.mark.parametrize(
    ("option", "value"), [("threshold", 1.5), ("weak", -1.0), ("max_lost", 0.0), ("max_lost", 1e999)]
)
def test_options_out_of_range(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=str(value)):
        TrackingOptions(**{option: value})


def test_the_assignment_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    for rows, columns in ((3, 4), (4, 3), (4, 4), (1, 4)):
        agreement = rng.uniform(0, 1, (rows, columns))
        chosen = assign(agreement, 0.4)
        total = (agreement[chosen] - 0.4).sum()
        wide = np.zeros((rows, columns + rows))
        wide[:, :columns] = np.maximum(agreement - 0.4, 0)
        best = max(sum(wide[i, j] for i, j in enumerate(one)) for one in permutations(range(columns + rows), rows))
        assert total == pytest.approx(best)
        assert (agreement[chosen] > 0.4).all()


def test_identity_f1_by_hand() -> None:
    boxes = np.array([box(0), box(100)])
    frames = [SeenFrame(float(i), np.array([7, 9]), boxes) for i in range(4)]
    assert identity_f1(frames, [(np.array([1, 2]), boxes)] * 4) == 1
    # The ids of both objects change in the middle: half of all boxes are right.
    assert identity_f1(frames, [(np.array([1, 2]), boxes)] * 2 + [(np.array([2, 1]), boxes)] * 2) == 0.5
    assert identity_f1(frames, [(np.array([1]), boxes[:1])] * 4) == pytest.approx(2 * 4 / (8 + 4))


def test_of_a_lost_object_and_one_at_its_position_the_longer_seen_stays() -> None:
    tracker = Tracker()
    for step in range(11):
        hidden = [] if step > 1 else [box(100)]
        shown = update(tracker, step / 10, box(9.7 * step), *hidden)
        if shown.ended:
            break
    # It moves onto the lost one, which was seen for a tenth of a second.
    assert (shown.ended, shown.ids.tolist(), len(tracker)) == ((2,), [1], 1)
    assert step == 10


def test_the_height_of_a_hidden_object_stays() -> None:
    tracker = Tracker()
    for step in range(6):
        update(tracker, step / 10, [0.0, 0.0, 40.0, 40.0 + 4 * step])
    assert tracker.states[1][3, 1] > 20
    for step in range(6, 12):
        update(tracker, step / 10)
    value, velocity = tracker.states[1][3, :2]
    assert velocity == 0
    assert 55 < value < 70


def test_tracking_needs_no_torch() -> None:
    code = "import sys; from boxwright import CountLine, Tracker; Tracker(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.15, 0.3, 0.5, 0.8, 1.0])
def test_objects_go_on_at_any_threshold(threshold: float) -> None:
    tracker = Tracker(TrackingOptions(threshold=threshold, weak=min(0.1, threshold)))
    score = min(threshold * 1.21, (1 + threshold) / 2) if threshold else 0.01
    update(tracker, 0.0)
    shown = [update(tracker, step / 10, box(3.0 * step), scores=[score]).ids.tolist() for step in range(1, 20)]
    assert shown == [[]] + [[1]] * 18
    assert len(tracker) == 1
