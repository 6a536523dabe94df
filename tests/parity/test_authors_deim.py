"""DEIM's authors' own numbers with RT-DETRv2's head, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

import pytest
from stored_heads import SIZE, build_small, check_detector, read_numbers
from stored_queries import read_targets, use_stored_queries

pytestmark = pytest.mark.conforms("DEIM with RT-DETRv2's head", "deim")


@pytest.mark.parametrize("united", [False, True])
def test_predictions_losses_and_gradients(united: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    authors = read_numbers("deim_rtdetrv2_r18")
    if united:
        authors |= {name.removeprefix("united_"): value for name, value in authors.items() if "united" in name}
    detector = build_small("deim_rtdetrv2_r18", 30, {"head.supervision.united_matches": united})
    use_stored_queries(monkeypatch, authors)
    targets = read_targets(authors, [(SIZE, SIZE)] * 2)
    check_detector(detector, authors, targets, logits=1e-8, boxes=1e-8, terms=1e-7)
