"""Counts of objects that cross lines, enter zones and leave them, by class and direction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_MARGIN = 0.1
"""Distance from a line or a border, by the smaller side of the box, from which on a side is clear: an object that
stands on a line does not cross it whenever its box trembles."""

Point = tuple[float | int, float | int]


@dataclass(frozen=True)
class CountLine:
    """A line that objects cross, to its right or to its left as seen from its begin to its end.

    Args:
        begin: (x, y) in pixels of the frame.
        end: likewise.

    Raises:
        ValueError: it has no length.
    """

    begin: Point
    end: Point

    def __post_init__(self) -> None:
        if not np.isfinite([*self.begin, *self.end]).all() or self.begin == self.end:
            raise ValueError(f"a line is from one point to another one, not from {self.begin} to {self.end}")

    @property
    def points(self) -> tuple[Point, ...]:
        """Both ends."""
        return self.begin, self.end

    def distance(self, point: Point) -> float:
        """Distance of a point from the line as if it had no ends; positive on its right."""
        (x1, y1), (x2, y2) = self.points
        return ((x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1)) / float(np.hypot(x2 - x1, y2 - y1))

    def is_crossed(self, a: Point, b: Point) -> bool:
        """Tell whether the way from a point on one side to one on the other leads between the ends."""
        of_a, of_b = self.distance(a), self.distance(b)
        part = of_a / (of_a - of_b)
        x, y = a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])
        (x1, y1), (x2, y2) = self.points
        along = (x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)
        return 0 <= along <= (x2 - x1) ** 2 + (y2 - y1) ** 2


@dataclass(frozen=True)
class CountZone:
    """A zone that objects enter and leave.

    Args:
        points: corners of a polygon, (x, y) in pixels of the frame, in order.

    Raises:
        ValueError: it has fewer than three corners, or no area.
    """

    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        corners = np.asarray(self.points, dtype=np.float64).reshape(-1, 2)
        if len(corners) < 3 or not np.isfinite(corners).all():
            raise ValueError(f"a zone has three corners or more, not {len(corners)}: {self.points}")
        x, y = corners.T
        if abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) < 1e-9:
            raise ValueError(f"a zone has an area, and {self.points} has none")

    def contains(self, point: Point) -> bool:
        """Tell whether a point is inside: a ray from it crosses the border an odd number of times."""
        x, y = point
        inside = False
        for (x1, y1), (x2, y2) in self._edges():
            if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
                inside = not inside
        return inside

    def border_distance(self, point: Point) -> float:
        """Distance of a point from the border."""
        at = np.asarray(point)
        distances = []
        for begin, end in self._edges():
            way = np.subtract(end, begin)
            part = np.clip((at - begin) @ way / max(way @ way, 1e-12), 0, 1)
            distances.append(float(np.hypot(*(at - begin - part * way))))
        return min(distances)

    def _edges(self) -> list[tuple[Point, Point]]:
        return list(zip(self.points, [*self.points[1:], self.points[0]], strict=True))


@dataclass(eq=False)
class LineCount:
    """Crossings of a line so far.

    Args:
        line: that is crossed.
        right: crossings to its right, by label.
        left: likewise.
    """

    line: CountLine
    right: Counter[int] = field(default_factory=Counter)
    left: Counter[int] = field(default_factory=Counter)
    _sides: dict[int, Point] = field(default_factory=dict)

    def update(self, one: int, label: int, point: Point, margin: float) -> None:
        """Take the position of an object."""
        distance = self.line.distance(point)
        if abs(distance) <= margin:
            return
        before = self._sides.get(one)
        self._sides[one] = point
        if before is not None and self.line.distance(before) * distance < 0 and self.line.is_crossed(before, point):
            (self.right if distance > 0 else self.left)[label] += 1

    def forget(self, one: int) -> None:
        """Forget an object that will not come again."""
        self._sides.pop(one, None)


@dataclass(eq=False)
class ZoneCount:
    """Objects that have entered a zone, have left it, and are inside now.

    Args:
        zone: of the frame.
        entered: by label; objects that are inside when they are first seen have not entered.
        exited: likewise.
    """

    zone: CountZone
    entered: Counter[int] = field(default_factory=Counter)
    exited: Counter[int] = field(default_factory=Counter)
    _inside: dict[int, bool] = field(default_factory=dict)

    @property
    def num_inside(self) -> int:
        """Number of objects inside, with those that are hidden for the moment."""
        return sum(self._inside.values())

    def update(self, one: int, label: int, point: Point, margin: float) -> None:
        """Take the position of an object."""
        inside, before = self.zone.contains(point), self._inside.get(one)
        if before is None or (inside != before and self.zone.border_distance(point) > margin):
            self._inside[one] = inside
            if before is not None:
                (self.entered if inside else self.exited)[label] += 1

    def forget(self, one: int) -> None:
        """Forget an object that will not come again."""
        self._inside.pop(one, None)


class CrossingCounts:
    """Counts over lines and zones, by the middle of each object's box.

    Args:
        lines: that are crossed.
        zones: that are entered and left.
    """

    def __init__(self, lines: Sequence[CountLine] = (), zones: Sequence[CountZone] = ()) -> None:
        self.lines = [LineCount(one) for one in lines]
        self.zones = [ZoneCount(one) for one in zones]

    def __bool__(self) -> bool:
        return bool(self.lines or self.zones)

    def check_size(self, width: int, height: int) -> None:
        """Make sure that all lines and zones are in a frame, in part at least.

        Raises:
            ValueError: one is not.
        """
        lines, zones = ([one.line.points for one in self.lines], [one.zone.points for one in self.zones])
        for kind, some in (("line", lines), ("zone", zones)):
            for number, points in enumerate(some, 1):
                corners = np.asarray(points)
                low, high = corners.min(0), corners.max(0)
                if (high < 0).any() or low[0] > width or low[1] > height:
                    raise ValueError(f"{kind} {number} lies outside the frame of {width} x {height} pixels: {points}")

    def update(self, ids: Sequence[int], labels: Sequence[int], boxes: Any, ended: Sequence[int]) -> None:
        """Take the objects of a frame, and the ids of those that will not come again."""
        counts: list[LineCount | ZoneCount] = [*self.lines, *self.zones]
        corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).tolist()
        for one, label, (x1, y1, x2, y2) in zip(ids, labels, corners, strict=True):
            point, margin = ((x1 + x2) / 2, (y1 + y2) / 2), _MARGIN * min(x2 - x1, y2 - y1)
            for count in counts:
                count.update(one, label, point, margin)
        for one in ended:
            for count in counts:
                count.forget(one)

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Convert to plain values.

        Args:
            names: of the classes, by label.
        """

        def by_name(counter: Counter[int]) -> dict[str, int]:
            totals: Counter[str] = Counter()
            for label in sorted(counter):
                totals[names[label]] += counter[label]
            return dict(totals)

        lines = [
            {"points": [*map(list, one.line.points)], "right": by_name(one.right), "left": by_name(one.left)}
            for one in self.lines
        ]
        zones = [
            {
                "points": [*map(list, one.zone.points)],
                "entered": by_name(one.entered),
                "exited": by_name(one.exited),
                "inside": one.num_inside,
            }
            for one in self.zones
        ]
        return {"lines": lines, "zones": zones}
