"""AugFPN's consistent supervision: its authors' own numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients

from boxwright.regions.box_branch import FAST_RCNN_BETA, AuxiliaryBoxHead, auxiliary_losses, box_losses
from boxwright.regions.sampling import SampledRegions, assign_targets
from boxwright.structures import Features, Level, Spec, Targets
from conformance import compare_terms, note_inputs

pytestmark = pytest.mark.conforms("AugFPN", "augfpn")

SPEC: Spec = {f"raw{i}": Level(2, 2**i, auxiliary=True) for i in (2, 3, 4)} | {"c2": Level(5, 4)}
NUM_CLASSES, SIDE = 3, 128
WEIGHT = 0.25


def branch() -> AuxiliaryBoxHead:
    branch = AuxiliaryBoxHead(SPEC, NUM_CLASSES, hidden_dim=8)
    set_weights(branch)
    with torch.no_grad():
        branch.branch.boxes.weight.mul_(20)  # distances on both sides of 1
        branch.branch.classes.weight.mul_(10)
    return branch


def maps() -> Features:
    return {
        name: uniform(f"map {name}", 2, at.channels, SIDE // at.stride, SIDE // at.stride) for name, at in SPEC.items()
    }


def regions() -> SampledRegions:
    """Ten of each image, four of them with one of three objects."""
    images = []
    for i in range(2):
        numbers = (uniform(f"objects of {i}", 3, 4) + 1) / 2
        corner = 5 + 50 * numbers[:, :2]
        target = Targets(torch.tensor([2, 0, 1]), torch.cat((corner, corner + 20 + 40 * numbers[:, 2:]), 1), (128, 128))
        objects = torch.tensor([0, 1, 2, 1, *[-1] * 6])
        boxes = target.boxes[objects.clamp(min=0)] + 5 * uniform(f"regions of {i}", 10, 4)
        images.append(assign_targets(boxes, objects, i, target))
    return SampledRegions(*(torch.cat(field) for field in zip(*images, strict=True)))


def test_losses_of_each_level_and_gradients() -> None:
    with np.load(Path(__file__).parent / "data" / "augfpn_supervision.npz") as numbers:
        theirs = dict(numbers)
    ours, features, regions_ = branch(), {name: x.requires_grad_() for name, x in maps().items()}, regions()
    note_inputs(list(features.values()))
    levels = ours(features, regions_.boxes, regions_.images)
    assert len(levels) == len(theirs["cross_entropy"]) == 3
    for i, level in enumerate(levels):
        terms = box_losses(level, regions_, 2.0, beta=FAST_RCNN_BETA)
        compare_terms({n: WEIGHT * x for n, x in terms.items()}, {n: theirs[n][i] for n in terms}, limit=1e-9)

    terms = auxiliary_losses(levels, regions_, 2.0, weight=WEIGHT)
    sums = {f"aux_{name}": float(theirs[name].sum()) for name in ("cross_entropy", "smooth_l1")}
    compare_terms(terms, sums, limit=1e-9)

    sum(terms.values()).backward()
    gradients = {name: x.grad for name, x in [*ours.named_parameters(), *features.items()] if name != "c2"}
    check_gradients(gradients, theirs, tolerance=1e-9)
