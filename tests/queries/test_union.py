"""The union of the matches of several layers."""

from __future__ import annotations

import torch

from boxwright.queries.matching import Matches
from boxwright.queries.union import unite_matches


def of_rows(*rows: tuple[int, int, int, int]) -> Matches:
    """Matches of (layer, image, query, object)."""
    return Matches(*torch.tensor(rows, dtype=torch.int64).reshape(-1, 4).T)


def unite(*rows: tuple[int, int, int, int]) -> list[tuple[int, ...]]:
    united = unite_matches(of_rows(*rows))
    assert not united.layer.any()
    return [tuple(row) for row in torch.stack(united[1:], 1).tolist()]


def test_a_query_keeps_the_object_that_it_has_most_often() -> None:
    assert unite((0, 0, 5, 0), (1, 0, 5, 1), (2, 0, 5, 1)) == [(0, 5, 1)]


def test_of_objects_that_it_has_equally_often_it_keeps_the_first() -> None:
    assert unite((0, 0, 5, 3), (1, 0, 5, 1)) == [(0, 5, 1)]


def test_an_object_may_have_several_queries_and_images_are_apart() -> None:
    rows = [(0, 0, 2, 0), (1, 0, 1, 0), (0, 1, 2, 4), (1, 1, 2, 4), (2, 1, 7, 5)]
    assert unite(*rows) == [(0, 1, 0), (0, 2, 0), (1, 2, 4), (1, 7, 5)]


def test_of_no_matches_there_is_none() -> None:
    assert unite() == []
