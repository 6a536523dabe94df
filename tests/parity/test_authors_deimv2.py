"""Numbers of DEIMv2's authors, and of EdgeCrafter's, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import make_images, set_weights
from stored_gradients import check_gradients
from stored_queries import read_targets, use_stored_queries

import boxwright
from boxwright.heads.dfine import DFINE

SIZE = 64
DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("recipe", "num_queries"), [("deimv2_atto", 20), ("deimv2_n", 20), ("deimv2_s", 30), ("ecdet_s", 30)]
)
def test_predictions_losses_and_gradients(recipe: str, num_queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(DATA / f"authors_{recipe}.npz") as numbers:
        authors = dict(numbers)
    small = {"image_size": SIZE, "head.num_queries": num_queries, "head.denoising.num_queries": 8}
    detector = boxwright.build(recipe, num_classes=5, overrides=small)
    set_weights(detector)
    detector.eval()  # of norms: there are four cells of the coarsest level
    images = make_images(2, SIZE)
    with torch.no_grad():
        output = detector(images)
    assert np.abs(output.logits[-1].numpy() - authors["logits"]).max() < 1e-6
    assert np.abs(output.boxes_cxcywh_norm[-1].numpy() - authors["boxes"]).max() < 1e-7

    use_stored_queries(monkeypatch, authors)
    targets = read_targets(authors, [(SIZE, SIZE)] * 2)
    losses = detector.loss(detector(images, None, targets), targets)
    expected = dict(zip(authors["term_names"].tolist(), authors["terms"].tolist(), strict=True))
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-6)

    if "late_terms" in authors:
        assert isinstance(detector.head, DFINE)
        matcher = detector.head.criterion.criterion.matcher
        monkeypatch.setattr(matcher, "is_late", True)
        late = detector.loss(detector(images, None, targets), targets)
        expected = dict(zip(authors["late_term_names"].tolist(), authors["late_terms"].tolist(), strict=True))
        assert {name: loss.item() for name, loss in late.items()} == pytest.approx(expected, rel=1e-6)

    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    check_gradients(gradients, authors, tolerance=1e-6, floor=1e-9)
