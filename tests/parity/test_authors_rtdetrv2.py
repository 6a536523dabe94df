"""RT-DETRv2's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import make_images, set_weights
from stored_gradients import check_gradients
from stored_queries import read_targets, use_stored_queries

import boxwright

SIZE = 64
DATA = Path(__file__).parent / "data"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "points": ("rtdetrv2_r18", {"head.decoder.num_points": [3, 6, 2]}),
    "discrete": ("rtdetrv2_r18", {"head.decoder.sampling_method": "discrete"}),
    "l": ("rtdetrv2_l", {}),
    "x": ("rtdetrv2_x", {}),
    "h": ("rtdetrv2_h", {}),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in ("x", "h") else kind for kind in KINDS]
)
def test_predictions_losses_and_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, overrides = KINDS[kind]
    with np.load(DATA / "authors_rtdetrv2_r18.npz") as numbers:
        shared = {name: numbers[name] for name in numbers.files if "/" not in name}
    with np.load(DATA / f"authors_{recipe}.npz") as numbers:
        authors = {name.partition("/")[2]: numbers[name] for name in numbers.files if name.startswith(f"{kind}/")}
    small = {"head.num_queries": 30, "head.denoising.num_queries": 8}
    detector = boxwright.build(recipe, num_classes=5, overrides={"image_size": SIZE, **small, **overrides})
    set_weights(detector)
    # The norms' own statistics, in training too: eight cells of the coarsest level make poor ones.
    detector.eval()
    images = make_images(2, SIZE)
    with torch.no_grad():
        output = detector(images)
    assert np.abs(output.logits[-1].numpy() - authors["logits"]).max() < 5e-6
    assert np.abs(output.boxes_cxcywh_norm[-1].numpy() - authors["boxes"]).max() < 2e-6

    use_stored_queries(monkeypatch, authors)
    targets = read_targets(shared, [(SIZE, SIZE)] * 2)
    losses = detector.loss(detector(images, None, targets), targets)
    expected = dict(zip(authors["term_names"].tolist(), authors["terms"].tolist(), strict=True))
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-6)

    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    assert any("sampling_offsets" in name for name in gradients) == (kind != "discrete")
    check_gradients(gradients, authors, tolerance=1e-6 if kind in ("l", "x", "h") else 1e-5, floor=1e-9)
