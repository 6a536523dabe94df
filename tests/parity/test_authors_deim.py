"""DEIM's authors' own numbers with RT-DETRv2's head, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import make_images, set_weights
from stored_gradients import check_gradients
from stored_queries import read_targets, use_stored_queries

import boxwright

SIZE = 64
DATA = Path(__file__).parent / "data"
SMALL = {"image_size": SIZE, "head.num_queries": 30, "head.denoising.num_queries": 8}


@pytest.mark.parametrize("united", [False, True])
def test_predictions_losses_and_gradients(united: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(DATA / "authors_deim_rtdetrv2_r18.npz") as numbers:
        authors = dict(numbers)
    if united:
        authors |= {name.removeprefix("united_"): value for name, value in authors.items() if "united" in name}
    matches = {"head.supervision.united_matches": united}
    detector = boxwright.build("deim_rtdetrv2_r18", num_classes=5, overrides=SMALL | matches)
    set_weights(detector)
    # The norms' own statistics, in training too: eight cells of the coarsest level make poor ones.
    detector.eval()
    images = make_images(2, SIZE)
    with torch.no_grad():
        output = detector(images)
    assert np.abs(output.logits[-1].numpy() - authors["logits"]).max() < 1e-8
    assert np.abs(output.boxes_cxcywh_norm[-1].numpy() - authors["boxes"]).max() < 1e-8

    use_stored_queries(monkeypatch, authors)
    targets = read_targets(authors, [(SIZE, SIZE)] * 2)
    losses = detector.loss(detector(images, None, targets), targets)
    expected = dict(zip(authors["term_names"].tolist(), authors["terms"].tolist(), strict=True))
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-7)

    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    check_gradients(gradients, authors, tolerance=1e-6, floor=1e-9)
