"""Positions of tiles: even, of one size, overlapping by what was asked for, over the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright_runtime.tiles import Tile, TileOptions, cut_tiles


@given(
    height=st.integers(1, 1500),
    width=st.integers(1, 1500),
    size=st.integers(100, 1200),
    overlap=st.floats(0, 0.7),
)
@settings(max_examples=50, deadline=None)
def test_tiles_cover_an_image_evenly(height: int, width: int, size: int, overlap: float) -> None:
    tiles = cut_tiles(height, width, TileOptions(size=size, overlap=overlap))
    assert {tile.size for tile in tiles} == {(min(size, height), min(size, width))}
    for length, starts in ((width, {t.left for t in tiles}), (height, {t.top for t in tiles})):
        own = sorted(starts)
        tile = min(size, length)
        assert (own[0], own[-1] + tile) == (0, length)
        steps = np.diff(own)
        if len(steps):
            assert steps.max() <= max(1, size * (1 - overlap))
            assert steps.max() - steps.min() <= 1
            # One tile less would not reach from border to border.
            assert (len(own) - 2) * max(1, int(size * (1 - overlap))) + tile < length
    assert len(set(tiles)) == len(tiles) == len({t.left for t in tiles}) * len({t.top for t in tiles})


def test_tiles_of_a_known_image() -> None:
    tiles = cut_tiles(640, 1000, TileOptions(size=640, overlap=0.25))
    assert tiles == [Tile(0, 0, 640, 640), Tile(360, 0, 1000, 640)]
    assert cut_tiles(100, 70, TileOptions(size=640)) == [Tile(0, 0, 70, 100)]
    assert [tile.left for tile in cut_tiles(64, 300, TileOptions(size=100, overlap=0))] == [0, 100, 200]


@pytest.mark.parametrize(
    ("size", "overlap", "message"), [(31, 0.2, "at least 32"), (64, 0.95, "0.9"), (64, -0.1, "0 ")]
)
def test_sizes_and_overlaps_out_of_range(size: int, overlap: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TileOptions(size=size, overlap=overlap)
