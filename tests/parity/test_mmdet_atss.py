"""ATSS's head of mmdetection: its numbers on our weights, made once (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients

from boxwright.heads.atss import ATSS
from boxwright.structures import Features, Level, Spec, Targets
from conformance import compare_equal, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("ATSS", "mmdet_in_co_detr")

SPEC: Spec = {"c3": Level(32, 8), "c4": Level(32, 16), "c5": Level(32, 32)}
NUM_CLASSES = 3

# No center is as far from one anchor as from another: there the order is left to chance.
CASES: dict[str, tuple[tuple[int, int], list[list[list[float]]]]] = {
    "many and one": (
        (96, 128),
        [[[3, 4, 59.6, 49.3], [10, 10, 69.7, 39.2], [80, 20, 119.4, 89.1]], [[20, 30, 99, 77]]],
    ),
    "none and one": ((96, 160), [[], [[40, 20, 129.3, 88.4]]]),
    "none": ((64, 96), [[], []]),
    "the same twice": (
        (128, 96),
        [[[10, 10, 59.3, 59.1], [10, 10, 59.3, 59.1], [12, 8, 61.7, 66.4]], [[0, 0, 95, 127]]],
    ),
    "at the border": ((75, 133), [[[0, 0, 19.3, 20], [113, 55.1, 133, 75], [0, 30, 133, 44.7]], [[100.7, 0, 133, 75]]]),
}


def head() -> ATSS:
    made = ATSS(SPEC, NUM_CLASSES, num_convs=1)
    set_weights(made)
    return made


def maps(size: tuple[int, int]) -> Features:
    return {
        name: uniform(f"{name} of {size}", 2, at.channels, -(-size[0] // at.stride), -(-size[1] // at.stride))
        for name, at in SPEC.items()
    }


def objects(case: str) -> list[Targets]:
    size, images = CASES[case]
    return [
        Targets(torch.arange(len(boxes)) % NUM_CLASSES, torch.tensor(boxes, dtype=torch.float64).view(-1, 4), size)
        for boxes in images
    ]


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "atss_mmdet.npz") as numbers:
        return dict(numbers)


@pytest.mark.parametrize("case", CASES)
def test_matches_losses_and_gradients(case: str, theirs: dict[str, np.ndarray]) -> None:
    ours, features, targets = head(), {n: x.requires_grad_() for n, x in maps(CASES[case][0]).items()}, objects(case)
    note_inputs(list(features.values()), targets=targets)
    output = ours(features)
    matched = ours.match_targets(output.anchors, targets)
    compare_equal("assignment", matched, theirs[f"{case}: matched"].tolist())
    losses = ours.loss(output, targets)
    # Their boxes are float32.
    expected = dict(zip(("focal", "giou", "centerness"), theirs[f"{case}: terms"].tolist(), strict=True))
    compare_terms(losses, expected, limit=1e-6, floor=1e-3)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: x.grad for name, x in [*ours.named_parameters(), *features.items()]}
    prefix = f"{case}: "
    own = {name.removeprefix(prefix): value for name, value in theirs.items() if name.startswith(prefix)}
    check_gradients(gradients, own, tolerance=1e-6)
