"""Objects that move through a drawn video as a detector without errors sees them, and the IDF1 of tracking them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from boxwright.tracking.assignment import overlap_of_pairs

SIZE = (1280, 720)


class SeenFrame(NamedTuple):
    """Objects that can be seen in a frame, by their own numbers."""

    time: float
    numbers: np.ndarray
    boxes: np.ndarray


def frame_times(*rates: tuple[int, float]) -> np.ndarray:
    """Times of so many frames at each of several rates."""
    steps = np.concatenate([np.full(count, 1 / rate) for count, rate in rates])
    return np.cumsum(steps) - steps[0]


class Crossings:
    """Objects on straight ways through a frame, back and forth, each hidden for ``hidden`` frames from time to time.

    Args:
        rng: of sizes, velocities and times.
        count: of the objects.
        hidden: frames for which an object is hidden each time.
        every: frames from one time to the next, for each object.
    """

    def __init__(self, rng: np.random.Generator, count: int, *, hidden: int = 15, every: int = 120) -> None:
        self.count, self.hidden, self.every = count, hidden, every
        self._sides = rng.uniform(30, 90, (count, 2))
        self._begin = rng.uniform(0, 1, (count, 2)) * SIZE
        angle = rng.uniform(0, 2 * np.pi, count)
        self._velocity = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(30, 150, (count, 1))
        self._phase = rng.integers(0, every, count)

    def frames(self, times: np.ndarray) -> Iterator[SeenFrame]:
        """Give the frames at some times; objects that leave come back as others, from the opposite border."""
        width = np.array(SIZE) + 100
        for index, time in enumerate(times):
            way = self._begin + self._velocity * time
            laps = np.floor(way / width).astype(int)
            centers = way - laps * width - 50
            numbers = np.arange(self.count) + self.count * (1 + 1000 * (laps[:, 0] + 500) + laps[:, 1] + 500)
            corners = np.concatenate((centers - self._sides / 2, centers + self._sides / 2), 1)
            seen = (index + self._phase) % self.every >= self.hidden
            seen &= ((corners[:, :2] > -40) & (corners[:, 2:] < np.array(SIZE) + 40)).all(1)
            yield SeenFrame(float(time), numbers[seen], corners[seen])


def identity_f1(targets: list[SeenFrame], tracked: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Compute IDF1: F1 of boxes whose id is that of their object, under the best assignment of ids to objects.

    **Source**: Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking" (2016).

    Args:
        targets: of each frame.
        tracked: ids and boxes of each frame.
    """
    objects = {number: row for row, number in enumerate(sorted({int(n) for one in targets for n in one.numbers}))}
    ids = {one: column for column, one in enumerate(sorted({int(i) for some, _ in tracked for i in some}))}
    together = np.zeros((len(objects), len(ids)))
    for target, (some, boxes) in zip(targets, tracked, strict=True):
        rows, columns = np.nonzero(overlap_of_pairs(target.boxes, boxes) >= 0.5)
        for row, column in zip(rows, columns, strict=True):
            together[objects[int(target.numbers[row])], ids[int(some[column])]] += 1
    right = together[linear_sum_assignment(together, maximize=True)].sum()
    return float(2 * right / (sum(len(one.boxes) for one in targets) + sum(len(some) for some, _ in tracked)))
