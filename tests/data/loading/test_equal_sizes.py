"""Batches of equal input size: every image once, and few batches."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.data.loading.equal_sizes import group_equal_sizes

input_sizes = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2)), max_size=30)


@given(sizes=input_sizes, batch_size=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_every_image_once_and_as_few_batches_as_can_be(sizes: list[tuple[int, int]], batch_size: int) -> None:
    batches = group_equal_sizes(sizes, batch_size)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len({sizes[index] for index in batch}) == 1
        assert batch == sorted(batch)
    assert len(batches) == sum(-(-sizes.count(size) // batch_size) for size in set(sizes))


def test_one_size_keeps_the_order() -> None:
    assert group_equal_sizes([(64, 64)] * 5, 2) == [[0, 1], [2, 3], [4]]
    assert group_equal_sizes([], 2) == []
