"""D-FINE's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

import pytest
from stored_heads import SIZE, build_small, check_detector, read_numbers
from stored_queries import read_targets, use_stored_queries

pytestmark = pytest.mark.conforms("D-FINE", "dfine")


@pytest.mark.parametrize(("recipe", "num_queries"), [("dfine_n", 20), ("dfine_s", 30)])
def test_predictions_losses_and_gradients(recipe: str, num_queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    authors = read_numbers(recipe)
    use_stored_queries(monkeypatch, authors)
    targets = read_targets(authors, [(SIZE, SIZE)] * 2)
    check_detector(build_small(recipe, num_queries), authors, targets, logits=1e-7, boxes=1e-8)
