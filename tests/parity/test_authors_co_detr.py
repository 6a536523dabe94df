"""Auxiliary heads beside their authors': numbers on our weights and sampled regions, made once (see README.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients
from torch import Tensor

from boxwright.heads.atss import ATSS
from boxwright.heads.deformable_detr import DeformableDETR
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.queries import DecoderOptions
from boxwright.queries.options import SupervisionOptions
from boxwright.regions import BoxOptions, RoIOptions
from boxwright.structures import Features, Level, Spec, Targets
from conformance import compare_equal, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("auxiliary heads of Co-DETR", "co_detr")

WIDTH, NUM_CLASSES, NUM_LAYERS = 64, 5, 3
SPEC: Spec = {f"c{3 + i}": Level(WIDTH, 8 * 2**i) for i in range(4)}
ROI = RoIOptions(coarsest_stride=64, sampling_ratio=2, aligned=True, level_epsilon="inside", num_samples=64)
HEADS = ("faster_rcnn", "atss")

Size = tuple[int, int]

CASES: dict[str, tuple[Size, Size, list[list[list[float]]]]] = {
    "many": ((96, 128), (96, 128), [[[3, 4, 59.6, 49.3], [10, 10, 69.7, 39.2], [80, 20, 119.4, 89.1]]]),
    "none": ((64, 96), (64, 96), [[]]),
    "padding": ((75, 100), (96, 128), [[[3, 4, 59.6, 49.3]], [[40, 20, 99.3, 74.4], [1, 1, 20, 19], [1, 1, 20, 19]]]),
}
"""Sizes of the images and of the input, and objects."""


def build_head() -> DeformableDETR:
    decoder = DecoderOptions(num_layers=NUM_LAYERS, num_heads=8, feedforward_dim=64)
    supervision = SupervisionOptions(auxiliary=HEADS)
    head = DeformableDETR(
        SPEC,
        NUM_CLASSES,
        hidden_dim=WIDTH,
        num_queries=20,
        decoder=decoder,
        refine="twice",
        two_stage="mixed",
        supervision=supervision,
    )
    regions = FasterRCNN(head.auxiliary_spec(), NUM_CLASSES, roi=ROI, boxes=BoxOptions(hidden_dim=16, aux_weight=0.0))
    head.add_auxiliary({"faster_rcnn": regions, "atss": ATSS(head.auxiliary_spec(), NUM_CLASSES, num_convs=1)})
    set_weights(head)
    for name in HEADS:
        # One number in theirs.
        position = head.get_parameter(f"auxiliary.starts.{name}.position").data
        position.fill_(position[0].item())
    return head


def make_maps(case: str) -> Features:
    (height, width), count = CASES[case][1], len(CASES[case][2])
    return {
        name: uniform(f"{case} {name}", count, WIDTH, -(-height // at.stride), -(-width // at.stride))
        for name, at in SPEC.items()
    }


def make_objects(case: str) -> list[Targets]:
    size, _, images = CASES[case]
    return [
        Targets(torch.arange(len(boxes)) % NUM_CLASSES, torch.tensor(boxes, dtype=torch.float64).view(-1, 4), size)
        for boxes in images
    ]


def run(head: DeformableDETR, maps: Features, case: str) -> tuple[Any, dict[str, Tensor]]:
    (height, width), padded, _ = CASES[case]
    targets, mask = make_objects(case), None
    if padded != (height, width):
        mask = torch.ones(len(targets), *padded, dtype=torch.bool)
        mask[:, :height, :width] = False
    output = head(maps, mask, targets, torch.tensor([[height, width]] * len(targets), dtype=torch.float64))
    return output, head.loss(output, targets)


def project(predictions: Sequence[Tensor]) -> list[float]:
    """Numbers that say all of predictions: the projections on directions of their own."""
    return [(x * uniform(f"direction {i}", *x.shape)).sum().item() for i, x in enumerate(predictions)]


@pytest.mark.parametrize("case", CASES)
def test_predictions_losses_and_gradients(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws candidates at random too, from other numbers: here both take the first ones."""
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))
    with np.load(Path(__file__).parent / "data" / "authors_co_detr.npz") as numbers:
        theirs = {n.removeprefix(f"{case}: "): x for n, x in numbers.items() if n.startswith(f"{case}: ")}
    head, maps = build_head(), {name: x.requires_grad_() for name, x in make_maps(case).items()}
    note_inputs(list(maps.values()), targets=make_objects(case))
    output, terms = run(head, maps, case)
    for name, group in zip(HEADS, output.taught.groups, strict=True):
        counts = group.chosen.valid.sum(1).tolist()
        compare_equal("assignment", counts, theirs[f"{name} counts"].tolist(), name="counts")
        own = [x[:, i, :n] for i, n in enumerate(counts) for x in (group.logits, group.boxes_cxcywh_norm)]
        ours, expected = (dict(enumerate(x)) for x in (project(own), theirs[f"{name} predictions"].tolist()))
        compare_terms(ours, expected, limit=1e-6, kind="outputs")
    expected = dict(zip(theirs["term_names"].tolist(), theirs["terms"].tolist(), strict=True))
    # Their boxes and anchors of ATSS are float32.
    compare_terms({name: terms[name] for name in expected}, expected, limit=1e-6)
    torch.stack([terms[name] for name in expected]).sum().backward()
    names = set(theirs["gradient_names"].tolist())
    named = {**dict(head.named_parameters()), **maps}
    check_gradients({name: x.grad for name, x in named.items() if name in names}, theirs, tolerance=1e-6, floor=1e-9)
