"""Labels: readable, inside the image, and beside the objects rather than on them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boxwright.drawing import DrawingStyle
from boxwright.drawing.labels import MOST_COVERED, Label, place_labels
from boxwright.drawing.objects import DrawnObject, Rectangle
from boxwright.drawing.rendering import draw_labels, draw_shapes, render

FULL = DrawingStyle()


def make_object(box: Rectangle, name: str = "cell", number: int = 1, detail: str = " 0.93") -> DrawnObject:
    return DrawnObject(box, name, number, detail, (0, 119, 187))


def scatter(count: int, size: tuple[int, int], sides: tuple[int, int], seed: int) -> list[DrawnObject]:
    """Objects of random sizes at random positions, as dense as they come."""
    random = np.random.default_rng(seed)
    objects = []
    for index in range(count):
        width, height = random.integers(sides[0], sides[1] + 1, 2).tolist()
        x, y = (int(random.integers(0, side - extent)) for side, extent in zip(size, (width, height), strict=True))
        name = ("nucleus", "blood cell", "a class of a long name")[index % 3]
        objects.append(make_object((x, y, x + width - 1, y + height - 1), name, index % 3))
    return objects


def is_apart(a: Rectangle, b: Rectangle) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def covered_part(one: DrawnObject, labels: list[Label]) -> float:
    x1, y1, x2, y2 = one.box
    covered = 0
    for left, top, right, bottom in (label.rectangle for label in labels):
        covered += max(min(right, x2 + 1) - max(left, x1), 0) * max(min(bottom, y2 + 1) - max(top, y1), 0)
    return covered / ((x2 - x1 + 1) * (y2 - y1 + 1))


@pytest.mark.parametrize("form", ["full", "short", "dots"])
@pytest.mark.parametrize(
    ("size", "sides"), [((640, 480), (12, 90)), ((1920, 1080), (20, 300)), ((300, 300), (4, 40)), ((96, 96), (3, 30))]
)
def test_a_hundred_objects_can_be_seen(size: tuple[int, int], sides: tuple[int, int], form: str) -> None:
    objects = scatter(100, size, sides, seed=0)
    labels = place_labels(objects, size, DrawingStyle(labels=form))
    for index, one in enumerate(labels):
        x1, y1, x2, y2 = one.rectangle
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        assert all(is_apart(one.rectangle, other.rectangle) for other in labels[:index])
    assert max(covered_part(one, labels) for one in objects) <= MOST_COVERED + 1e-9
    assert len({label.object_index for label in labels}) == len(labels)


@pytest.mark.parametrize(("form", "most"), [("full", 0.03), ("dots", 0.01)])
def test_pixels_of_a_hundred_objects_that_labels_cover(form: str, most: float) -> None:
    """Measured in the drawing itself, on the union of all boxes; the labels of earlier versions covered 48 %."""
    objects = scatter(100, (640, 480), (12, 60), seed=1)
    image = np.full((480, 640, 3), 128, dtype=np.uint8)
    plain = draw_shapes(image, objects, 1.0, None)
    labeled = plain.copy()
    labels = place_labels(objects, plain.size, DrawingStyle(labels=form))
    draw_labels(labeled, objects, labels)
    inside = np.zeros((480, 640), dtype=bool)
    for x1, y1, x2, y2 in (one.box for one in objects):
        inside[y1 : y2 + 1, x1 : x2 + 1] = True
    changed = (np.asarray(plain) != np.asarray(labeled)).any(2)
    assert changed[inside].mean() <= most
    assert len(labels) >= 95


def test_few_objects_have_their_names() -> None:
    objects = scatter(10, (640, 480), (30, 90), seed=2)
    labels = place_labels(objects, (640, 480), FULL)
    assert [label.kind for label in labels] == ["name"] * 10
    for label in labels:
        assert label.lettering is not None
        assert label.lettering.text.startswith(objects[label.object_index].name[:3])
        assert label.lettering.text.endswith(" 0.93")


def test_a_long_name_is_shortened_at_its_own_box() -> None:
    for box in ((20, 50, 119, 149), (200, 50, 299, 149), (20, 0, 600, 470)):
        objects = [make_object(box, "x" * 500)]
        (label,) = place_labels(objects, (640, 480), FULL)
        assert label.lettering is not None
        assert label.lettering.text.startswith("xxx")
        assert label.lettering.text.endswith("... 0.93")
        x1, y1, x2, y2 = label.rectangle
        assert x2 - x1 <= max(box[2] - box[0] + 1, 10 * label.lettering.size)
        assert x1 == box[0]
        assert y2 == box[1] or y1 == box[1] or (y1 == 0 and box[1] == 0)


def test_what_has_no_room_becomes_shorter() -> None:
    """A small object among large ones, which its name would hide, and others around it."""
    small = make_object((100, 100, 111, 111))
    around = [
        make_object((x, y, x + 11, y + 11))
        for x in range(76, 130, 12)
        for y in range(76, 130, 12)
        if (x, y) != (100, 100)
    ]
    (label,) = [one for one in place_labels([small, *around], (400, 400), FULL) if one.object_index == 0]
    assert label.kind == "dot"
    (alone,) = place_labels([small], (400, 400), FULL)
    assert alone.kind == "name"


def test_forms() -> None:
    box = (100, 100, 199, 199)
    texts = {}
    for form in ("full", "short", "dots"):
        (label,) = place_labels([make_object(box, number=7)], (400, 400), DrawingStyle(labels=form))
        texts[form] = None if label.lettering is None else label.lettering.text
    assert texts == {"full": "cell 0.93", "short": "7", "dots": None}
    assert place_labels([make_object(box)], (400, 400), DrawingStyle(labels="none")) == []


def test_letters_of_small_objects_are_smaller() -> None:
    large, small = make_object((100, 300, 499, 799)), make_object((600, 300, 639, 339))
    sizes = [one.lettering.size for one in place_labels([large, small], (1000, 1000), FULL) if one.lettering]
    assert sizes == [28, 10]
    sizes = [
        one.lettering.size
        for one in place_labels([large, small], (1000, 1000), DrawingStyle(font_size=20))
        if one.lettering
    ]
    assert sizes == [20, 20]


@pytest.mark.parametrize(("width", "side", "expected"), [(None, 400, 6), (None, 32, 2), (None, 8, 1), (5, 32, 5)])
def test_lines_of_small_objects_are_thinner(width: int | None, side: int, expected: int) -> None:
    image = np.full((1000, 1000, 3), 128, dtype=np.uint8)
    one = make_object((100, 100, 99 + side, 99 + side))
    row = np.asarray(render(image, [one], 1.0, DrawingStyle(labels="none", line_width=width)))[100 + side // 2]
    assert (row[100 : 100 + min(expected, side)] == one.color).all()
    assert (row != 128).any(1).sum() == min(2 * expected, side)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "long"}, "labels are full, short, dots, none, not 'long'"),
        ({"line_width": 0}, "the line width is from 1 to 1000 pixels, not 0"),
        ({"font_size": 2}, "the font size is from 5 to 1000 pixels, not 2"),
        ({"font_size": math.nan}, "the font size is from 5 to 1000 pixels, not nan"),
        ({"font": __file__}, "is no font that can be drawn with"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DrawingStyle(**options)  # type: ignore[arg-type]


def test_a_font_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.ttf: no such font"):
        DrawingStyle(font="none.ttf")
