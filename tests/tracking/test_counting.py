"""Objects over lines and in zones, counted once each, by class and direction."""

from __future__ import annotations

import numpy as np
import pytest

from boxwright.tracking.counting import CountLine, CountZone, CrossingCounts

NAMES = ["car", "bus"]
LEVEL = CountLine((10, 50), (90, 50))
"""From left to right: its right is below."""

SQUARE = CountZone(((20, 20), (80, 20), (80, 80), (20, 80)))


def walk(
    counts: CrossingCounts, *ways: list[tuple[float, float]], labels: tuple[int, ...] = (0, 1), side: float = 10
) -> None:
    """Move one object along each way, all at once."""
    for points in zip(*ways, strict=True):
        boxes = [[x - side / 2, y - side / 2, x + side / 2, y + side / 2] for x, y in points]
        ids = list(range(1, len(points) + 1))
        counts.update(ids, labels[: len(ids)], boxes, [])


def down(x: float) -> list[tuple[float, float]]:
    return [(x, float(y)) for y in range(10, 100, 8)]


def test_a_line_is_crossed_in_two_directions() -> None:
    counts = CrossingCounts([LEVEL])
    walk(counts, down(30), down(60)[::-1])
    assert counts.to_dict(NAMES) == {
        "lines": [{"points": [[10, 50], [90, 50]], "right": {"car": 1}, "left": {"bus": 1}}],
        "zones": [],
    }


def test_ways_beside_the_ends_do_not_count() -> None:
    counts = CrossingCounts([LEVEL])
    walk(counts, down(5), down(95))
    assert not counts.lines[0].right
    walk(counts, down(10.5)[::-1], down(89.5)[::-1])
    assert sum(counts.lines[0].left.values()) == 2


def test_an_object_that_trembles_on_a_line_crosses_it_once() -> None:
    rng = np.random.default_rng(0)
    on_line = [(50.0, 50 + float(noise)) for noise in rng.uniform(-0.9, 0.9, 100)]
    counts = CrossingCounts([LEVEL], [CountZone(((0, 50), (100, 50), (100, 100), (0, 100)))])
    walk(counts, [(50.0, 40.0), *on_line, (50.0, 60.0), *on_line, (50.0, 60.0)])
    assert counts.to_dict(NAMES)["lines"][0]["right"] == {"car": 1}
    assert counts.to_dict(NAMES)["lines"][0]["left"] == {}
    assert counts.to_dict(NAMES)["zones"][0] == {
        "points": [[0, 50], [100, 50], [100, 100], [0, 100]],
        "entered": {"car": 1},
        "exited": {},
        "inside": 1,
    }


def test_a_fast_object_is_counted_where_its_way_crosses() -> None:
    counts = CrossingCounts([LEVEL])
    walk(counts, [(0.0, 0.0), (100.0, 100.0)], [(-50.0, 45.0), (20.0, 300.0)])
    assert counts.to_dict(NAMES)["lines"][0]["right"] == {"car": 1}


def test_zones_are_entered_and_left() -> None:
    counts = CrossingCounts(zones=[SQUARE])
    walk(counts, [(50, 50), (50, 50), (50, 95)], [(50, 5), (50, 50), (50, 55)])
    (zone,) = counts.zones
    assert (dict(zone.entered), dict(zone.exited), zone.num_inside) == ({1: 1}, {0: 1}, 1)
    counts.update([], [], np.empty((0, 4)), [2])
    assert zone.num_inside == 0
    assert dict(zone.exited) == {0: 1}


def test_a_zone_may_be_hollow() -> None:
    hook = CountZone(((0, 0), (90, 0), (90, 90), (60, 90), (60, 30), (30, 30), (30, 90), (0, 90)))
    assert [hook.contains(point) for point in ((10, 80), (45, 60), (75, 80), (45, 15), (95, 15))] == [
        True, False, True, True, False,
    ]  # fmt: skip
    assert hook.border_distance((45, 60)) == 15
    assert hook.border_distance((100, 100)) == pytest.approx(np.hypot(10, 10))


def test_objects_that_have_ended_are_forgotten() -> None:
    counts = CrossingCounts([LEVEL], [SQUARE])
    for number in range(1000):
        counts.update([number], [0], [[40, 10, 50, 20]], [number - 1])
    assert len(counts.lines[0]._sides) == len(counts.zones[0]._inside) == 1


@pytest.mark.parametrize(
    ("points", "message"),
    [([(0, 0), (1, 1)], "three corners or more, not 2"), ([(0, 0), (1, 1), (2, 2)], "has none"), ([], "not 0")],
)
def test_zones_have_an_area(points: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CountZone(tuple(points))


def test_lines_have_a_length() -> None:
    with pytest.raises(ValueError, match=r"not from \(3, 4\) to \(3, 4\)"):
        CountLine((3, 4), (3, 4))
    with pytest.raises(ValueError, match="from one point to another"):
        CountLine((3, float("nan")), (3, 4))


def test_lines_and_zones_lie_in_the_frame() -> None:
    CrossingCounts([LEVEL], [SQUARE]).check_size(20, 60)
    with pytest.raises(ValueError, match="line 1 lies outside the frame of 20 x 40 pixels"):
        CrossingCounts([LEVEL]).check_size(20, 40)
    with pytest.raises(ValueError, match="zone 2 lies outside"):
        CrossingCounts(zones=[SQUARE, CountZone(((-9, 0), (-1, 0), (-1, 9)))]).check_size(99, 99)
