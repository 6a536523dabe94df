"""Hours of a stream at full speed: objects that come and go, tracked, counted, drawn as trails and written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from boxwright.drawing.tracks import Trails
from boxwright.structures import Category
from boxwright.tracking.counting import CountLine, CountZone, CrossingCounts
from boxwright.tracking.tracker import Tracker
from boxwright.workflows.video_files import CocoVideo, JsonLines, MotText
from boxwright.workflows.video_frames import PredictedFrame
from boxwright_runtime import Detections

RATE, LANES, SPEED = 10.0, 8, 90.0
"""Frames per second; lanes; pixels per second, with which an object crosses 1,280 pixels in 14 s."""

CATEGORIES = (Category(1, "car"), Category(2, "bus"))


def peak_kib() -> int:
    """Peak memory of this process."""
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert match
    return int(match[1])


def objects_at(time: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the objects in all lanes, and their labels; each is hidden for a second of eight."""
    boxes, numbers = [], []
    for lane in range(LANES):
        way = time * SPEED * (1 + lane / 10) + 130 * lane
        for position in np.arange(way % 700, 1280, 700):
            number = round((way - position) / 700)
            if (time + number + lane) % 8 > 1:
                boxes.append([position, 80 * lane + 10, position + 50, 80 * lane + 60])
                numbers.append(number)
    return np.array(boxes).reshape(-1, 4), np.array(numbers, dtype=np.int64) % 2


def run(num_frames: int) -> tuple[int, int, int, int]:
    """Return the peak memory after a tenth and at the end, in KiB, and the number of objects: by ids, and by counts.

    Raises:
        AssertionError: an id was left out, or came back.
    """
    tracker, trails = Tracker(), Trails()
    line, zone = CountLine((640, 0), (640, 720)), CountZone(((200, 0), (900, 0), (900, 720), (200, 720)))
    counts, last_id, early = CrossingCounts([line], [zone]), 0, 0
    with (
        TemporaryDirectory() as folder,
        JsonLines(Path(folder, "a.jsonl")) as lines,
        MotText(Path(folder, "a.txt")) as mot,
        CocoVideo(Path(folder, "a.json"), "a", CATEGORIES) as coco,
    ):
        for index in range(num_frames):
            time = index / RATE
            boxes, labels = objects_at(time)
            scores = np.full(len(boxes), 0.9)
            shown = tracker.update(time, boxes, scores, labels)
            new = shown.ids[shown.ids > last_id].tolist()
            assert new == list(range(last_id + 1, last_id + 1 + len(new)))
            last_id += len(new)
            trails.update(time, shown.ids.tolist(), boxes[shown.indices])
            counts.update(shown.ids.tolist(), shown.labels.tolist(), boxes[shown.indices], shown.ended)
            if index % 100 == 0:  # Writing takes more time than all else.
                detections = Detections(boxes, scores, labels, None, CATEGORIES)[shown.indices]
                ids = tuple(shown.ids.tolist())
                for one in (lines, mot, coco):
                    one.write(PredictedFrame(index, time, (720, 1280), detections, ids, shown.ended))
            if index == num_frames // 10:
                early = peak_kib()
            assert len(tracker) <= 60
            assert len(trails) <= 60
        (count,) = counts.lines
        return early, peak_kib(), last_id, sum(count.left.values()) + sum(count.right.values())


if __name__ == "__main__":
    print(*run(int(sys.argv[1])))
