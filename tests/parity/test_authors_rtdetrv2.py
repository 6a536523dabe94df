"""RT-DETRv2's authors' own numbers, made once with their code (see README.md) and checked for ever."""

from __future__ import annotations

from typing import Any

import pytest
from stored_heads import SIZE, build_small, check_detector, read_numbers
from stored_queries import read_targets, use_stored_queries

pytestmark = pytest.mark.conforms("RT-DETRv2", "rtdetr")

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
    shared, numbers = read_numbers("rtdetrv2_r18"), read_numbers(recipe)
    authors = {name.removeprefix(f"{kind}/"): x for name, x in numbers.items() if name.startswith(f"{kind}/")}
    assert any("sampling_offsets" in name for name in authors["gradient_names"]) == (kind != "discrete")
    detector = build_small(recipe, 30, overrides)
    use_stored_queries(monkeypatch, authors)
    targets = read_targets(shared, [(SIZE, SIZE)] * 2)
    gradients = 1e-6 if kind in ("l", "x", "h") else 1e-5
    check_detector(detector, authors, targets, logits=5e-6, boxes=2e-6, gradients=gradients)
