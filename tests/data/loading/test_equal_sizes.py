"""Batches of equal canvases: every image once, none padded, few left over."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.data.images import resample
from boxwright.data.input_format import InputFormat, Window
from boxwright.data.loading.equal_sizes import MAX_WAITING, group_equal_sizes, prepare_equal_sizes
from boxwright.structures import ImageSize

FORMAT = InputFormat(image_size=32, resize="shortest_side", max_size=64)

canvases = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2)), max_size=30)


@given(canvases=canvases, batch_size=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_every_image_once_and_as_few_batches_as_can_be(canvases: list[tuple[int, int]], batch_size: int) -> None:
    batches = group_equal_sizes(canvases, batch_size)
    assert sorted(place for batch in batches for place in batch) == list(range(len(canvases)))
    for batch in batches:
        assert len({canvases[place] for place in batch}) == 1
        assert batch == sorted(batch)
    assert len(batches) == sum(-(-canvases.count(canvas) // batch_size) for canvas in set(canvases))


def test_one_canvas_keeps_the_order() -> None:
    assert group_equal_sizes([(64, 64)] * 5, 2) == [[0, 1], [2, 3], [4]]
    assert group_equal_sizes([], 2) == []


def make_images(shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


@given(shapes=st.lists(st.sampled_from([(10, 10), (20, 30), (40, 60), (30, 20)]), max_size=25), size=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_images_are_read_into_batches_of_equal_canvases(shapes: list[tuple[int, int]], size: int) -> None:
    images = make_images(shapes)
    batches = list(prepare_equal_sizes(images, FORMAT, size))
    assert sorted(one.place for batch in batches for one in batch) == list(range(len(shapes)))
    assert all(1 <= len(batch) <= size for batch in batches)
    for batch in batches:
        assert len({one.canvas.shape for one in batch}) == 1
        for one in batch:
            (height, width), canvas = shapes[one.place], FORMAT.canvas(*shapes[one.place])
            assert one.size == ImageSize(height, width, *canvas)
            assert torch.equal(one.canvas, resample(images[one.place], Window.whole(height, width), *canvas))


def test_a_square_format_reads_batch_by_batch() -> None:
    """Nothing is read before it is needed."""
    read = iter(range(10**9))
    endless = (np.full((8, 8, 3), next(read) % 256, dtype=np.uint8) for _ in iter(int, 1))
    batches = prepare_equal_sizes(endless, InputFormat(image_size=32), 3)
    assert [one.place for one in next(batches)] == [0, 1, 2]
    assert [one.place for one in next(batches)] == [3, 4, 5]
    assert next(read) == 6


def test_not_too_many_canvases_wait() -> None:
    """Thirty canvases, each again only after all others: some leave alone, to make room."""
    images = iter(make_images([(32, 32 + i % 30) for i in range(60)]))
    waiting, done = [], 0
    for batch in prepare_equal_sizes(images, FORMAT, 2):
        waiting.append(60 - len(list(copy(images))) - done)
        done += len(batch)
    assert max(waiting) == MAX_WAITING * 2
    assert done == 60


def test_what_is_no_image_is_an_error_in_its_turn(tmp_path: Path) -> None:
    images = [*make_images([(10, 10)] * 2), tmp_path / "nowhere.png", *make_images([(10, 10)])]
    batches = prepare_equal_sizes(images, FORMAT, 2)
    assert len(next(batches)) == 2
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        next(batches)
