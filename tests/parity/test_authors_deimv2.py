"""Numbers of DEIMv2's authors, and of EdgeCrafter's, made once with their code (see README.md)."""

from __future__ import annotations

import pytest
from formula import make_images
from stored_heads import SIZE, build_small, check_detector, check_terms, read_numbers
from stored_queries import read_targets, use_stored_queries

from boxwright.heads.dfine import DFINE


@pytest.mark.parametrize(
    ("recipe", "num_queries"),
    [
        *(
            pytest.param(recipe, num_queries, marks=pytest.mark.conforms("DEIMv2", "deimv2"))
            for recipe, num_queries in (("deimv2_atto", 20), ("deimv2_n", 20), ("deimv2_s", 30))
        ),
        pytest.param("ecdet_s", 30, marks=pytest.mark.conforms("ECDet", "edgecrafter")),
    ],
)
def test_predictions_losses_and_gradients(recipe: str, num_queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    authors = read_numbers(recipe)
    detector = build_small(recipe, num_queries)
    use_stored_queries(monkeypatch, authors)
    targets = read_targets(authors, [(SIZE, SIZE)] * 2)
    check_detector(detector, authors, targets, logits=1e-6, boxes=1e-7)

    if "late_terms" in authors:
        assert isinstance(detector.head, DFINE)
        monkeypatch.setattr(detector.head.criterion.criterion.matcher, "is_late", True)
        late = detector.loss(detector(make_images(2, SIZE), None, targets), targets)
        check_terms(late, authors, prefix="late_")
