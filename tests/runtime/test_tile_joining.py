"""Detections of tiles, joined: every object once, with the sides that it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from boxwright_runtime import Category, Detections
from boxwright_runtime.masks import decode_rle
from boxwright_runtime.tile_joining import join_tiles
from boxwright_runtime.tiles import Tile, TileOptions, cut_tiles
from seen_objects import draw_objects, fill_box, rows_of, see

WHOLE = Tile(0, 0, 200, 100)
LEFT, RIGHT = Tile(0, 0, 110, 100), Tile(90, 0, 200, 100)


def detect(*rows: tuple[Any, ...]) -> Detections:
    """Make detections of rows (x1, y1, x2, y2, score, label), best first."""
    values = np.array(sorted(rows, key=lambda row: -row[4]), dtype=np.float64).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(np.int64))


def join(tiles: dict[Tile, Detections]) -> list[list[float]]:
    joined = join_tiles(list(tiles), list(tiles.values()), (100, 200))
    return np.column_stack((joined.boxes, joined.scores, joined.labels)).round(4).tolist()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("equal_scores", [True, False])
def test_every_object_of_a_large_image_once(whole: bool, overlap: float, equal_scores: bool) -> None:
    size = (1900, 2300)
    objects = draw_objects(np.random.default_rng(0), 400, size)
    if equal_scores:
        objects.scores = np.ones(len(objects))
    tiles = cut_tiles(*size, TileOptions(size=512, overlap=overlap))
    seen = [see(objects, tile) for tile in tiles]
    assert sum(map(len, seen)) > 1.5 * len(objects)
    if whole:
        tiles, seen = [Tile(0, 0, size[1], size[0]), *tiles], [objects, *seen]
    joined = join_tiles(tiles, seen, size)
    assert len(joined) == len(objects)
    assert rows_of(joined) == rows_of(objects)
    assert (np.diff(joined.scores) <= 0).all()


def test_whole_boxes_suppress_what_others_see_of_the_same_object_only() -> None:
    # An object in both tiles, one of them cutting it; a small one on a large one, of the same class.
    large, small = (20, 10, 180, 90), (95, 40, 105, 60)
    left = detect((20, 10, 110, 90, 0.8, 0), (95, 40, 105, 60, 0.6, 0))
    right = detect((0, 10, 90, 90, 0.9, 0), (5, 40, 15, 60, 0.7, 0))
    assert join({LEFT: left, RIGHT: right}) == [[*large, 0.9, 0], [*small, 0.7, 0]]


def test_classes_are_never_joined() -> None:
    left, right = detect((20, 10, 110, 90, 0.8, 0)), detect((0, 10, 90, 90, 0.9, 1))
    assert [row[5] for row in join({LEFT: left, RIGHT: right})] == [1, 0]


def test_objects_that_agree_by_half_are_two() -> None:
    left, right = detect((80, 10, 105, 50, 0.8, 0)), detect((5, 40, 40, 80, 0.9, 0))
    assert len(join({LEFT: left, RIGHT: right})) == 2


def test_sides_are_of_tiles_that_do_not_cut_them() -> None:
    # The left tile sees the left side, the right one the right side: each is off where the other is cut.
    left, right = detect((50, 11, 109.5, 52, 0.9, 0)), detect((0.5, 9, 60, 51, 0.4, 0))
    assert join({LEFT: left, RIGHT: right}) == [[50, 11, 150, 52, 0.9, 0]]


def test_tiles_that_only_touch_join_what_ends_at_their_border() -> None:
    one, other = Tile(0, 0, 100, 100), Tile(100, 0, 200, 100)
    left, right = detect((50, 10, 100, 50, 0.9, 0), (20, 70, 90, 90, 0.8, 0)), detect((0, 12, 30, 52, 0.4, 0))
    assert join({one: left, other: right}) == [[50, 10, 130, 50, 0.9, 0], [20, 70, 90, 90, 0.8, 0]]


def test_a_cut_box_that_a_better_view_does_not_have_is_left_out() -> None:
    # Right of x = 90 the right tile sees more; the left one's box there ends where its tile does.
    left, right = detect((100, 10, 110, 30, 0.9, 0), (20, 20, 40, 40, 0.8, 0)), detect((40, 50, 80, 90, 0.7, 0))
    assert join({LEFT: left, RIGHT: right}) == [[20, 20, 40, 40, 0.8, 0], [130, 50, 170, 90, 0.7, 0]]
    # What the other tile cannot see as a whole stays, cut as it is.
    left = detect((60, 10, 110, 30, 0.9, 0))
    assert join({LEFT: left, RIGHT: detect()}) == [[60, 10, 110, 30, 0.9, 0]]


def test_the_whole_counts_for_objects_that_no_tile_holds() -> None:
    whole = detect((10, 10, 190, 90, 0.5, 0), (20, 20, 40, 40, 0.9, 0))
    assert join({WHOLE: whole, LEFT: detect(), RIGHT: detect()}) == [[10, 10, 190, 90, 0.5, 0]]
    # Tiles are sharper: their sides are taken where they see them.
    left, right = detect((12, 11, 110, 88, 0.8, 0)), detect((0, 11, 99, 89, 0.7, 0))
    assert join({WHOLE: whole, LEFT: left, RIGHT: right}) == [[12, 11, 189, 88, 0.8, 0]]


def test_of_two_that_look_the_same_where_tiles_meet_scores_tell_which_is_which() -> None:
    left = detect((10, 10, 110, 50, 0.9, 0), (60, 10, 110, 50, 0.5, 0))
    right = detect((0, 10, 30, 50, 0.9, 0), (0, 10, 100, 50, 0.5, 0))
    assert join({LEFT: left, RIGHT: right}) == [[10, 10, 120, 50, 0.9, 0], [60, 10, 190, 50, 0.5, 0]]


def test_masks_are_united_and_moved() -> None:
    size = (300, 400)
    objects = draw_objects(np.random.default_rng(1), 40, size, largest=250)
    objects.boxes = objects.boxes.round()
    keep = (objects.boxes[:, 2:] > objects.boxes[:, :2]).all(1)
    objects = objects[keep]
    tiles = cut_tiles(*size, TileOptions(size=128))
    joined = join_tiles(tiles, [see(objects, tile, masks=True) for tile in tiles], size)
    assert rows_of(joined) == rows_of(objects)
    assert joined.masks is not None
    for box, mask in zip(joined.boxes, joined.masks, strict=True):
        np.testing.assert_array_equal(decode_rle(mask), fill_box(box, size))


def test_tensors_stay_tensors_with_categories_and_standard_deviations() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    categories = (Category(3, "a"),)

    def make(row: list[float], std: list[float]) -> Detections:
        values = torch.tensor([row])
        return Detections(
            values[:, :4], values[:, 4], values[:, 5].long(), None, categories, sides_std=torch.tensor([std])
        )

    one, other = make([50, 11, 110, 52, 0.9, 0], [1, 2, 3, 4]), make([0, 9, 60, 51, 0.4, 0], [5, 6, 7, 8])
    joined = join_tiles([LEFT, RIGHT], [one, other], (100, 200))
    assert joined.boxes.tolist() == [[50, 11, 150, 52]]
    assert joined.sides_std is not None
    assert joined.sides_std.tolist() == [[1, 2, 7, 4]]
    assert (joined.boxes.dtype, joined.labels.dtype, joined.names) == (torch.float32, torch.int64, ["a"])


def test_nothing_in_any_tile() -> None:
    assert join({WHOLE: detect(), LEFT: detect(), RIGHT: detect()}) == []
