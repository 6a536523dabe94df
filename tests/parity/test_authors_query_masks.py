"""Masks of queries beside their authors': their numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients
from torch import Tensor

from boxwright.queries.mask_branch import MaskFactors, QueryMaskBranch
from boxwright.queries.mask_losses import compute_mask_losses
from boxwright.queries.mask_points import MaskPoints, MaskTargets, compute_mask_costs
from boxwright.queries.matching import Matches
from conformance import compare_tensors, compare_terms, note_inputs

SIZE, COUNTS, LAYERS, QUERIES, WIDTH = (64, 96), (2, 0, 4), 3, 6, 8
CELLS = SIZE[0] // 4, SIZE[1] // 4
MATCHES = Matches(
    *(
        torch.tensor(row)
        for row in ([0, 0, 0, 1, 1, 2, 2], [0, 0, 2, 2, 0, 2, 2], [5, 1, 0, 3, 2, 4, 1], [0, 1, 3, 2, 1, 5, 4])
    )
)
"""Of layer, image, query and object."""


def make_branch() -> QueryMaskBranch:
    branch = QueryMaskBranch(WIDTH, LAYERS, stride=8)
    set_weights(branch)
    return branch


def make_inputs() -> tuple[Tensor, Tensor]:
    """Make the finest level of three images, and the contents of their queries after each layer."""
    level = uniform("finest", len(COUNTS), WIDTH, SIZE[0] // 8, SIZE[1] // 8)
    return level, uniform("contents", LAYERS, len(COUNTS), QUERIES, WIDTH)


def make_targets(*, margin: float) -> list[MaskTargets]:
    """Make masks, some at the border, and points at least ``margin`` away from it, in fractions of the image."""
    count, targets = CELLS[0] * CELLS[1] // 16, []
    for image, objects in enumerate(COUNTS):
        masks = uniform(f"masks {image}", objects, *SIZE) > 0
        masks[::2, : SIZE[0] // 2, : SIZE[1] // 3] = True
        masks[1::2, SIZE[0] // 2 :, SIZE[1] // 4 :] = False
        shapes = (count, 2), (objects, 3 * count, 2), (objects, count - int(0.75 * count), 2)
        drawn = [(uniform(f"points {image} {i}", *shape) + 1) / 2 for i, shape in enumerate(shapes)]
        points = MaskPoints(*(one * (1 - 2 * margin) + margin for one in drawn))
        targets.append(MaskTargets(masks, SIZE, points))
    return targets


def losses_of(masks: MaskFactors, margin: float) -> tuple[Tensor, Tensor]:
    return compute_mask_losses(masks, MATCHES, make_targets(margin=margin), float(sum(COUNTS)))


@pytest.mark.parametrize(
    ("authors", "margin"),
    [
        pytest.param("rf_detr", 0.0, marks=pytest.mark.conforms("masks of queries", "rfdetr")),
        pytest.param("edgecrafter", 0.05, marks=pytest.mark.conforms("masks of queries", "edgecrafter")),
    ],
)
def test_masks_costs_losses_and_gradients(authors: str, margin: float) -> None:
    with np.load(Path(__file__).parent / "data" / "query_masks.npz") as numbers:
        theirs = {key.removeprefix(f"{authors}/"): x for key, x in numbers.items() if key.startswith(f"{authors}/")}
    branch = make_branch()
    note_inputs(*make_inputs())
    masks = branch(*make_inputs(), LAYERS)
    every_query = torch.arange(QUERIES).expand(len(COUNTS), -1)
    probabilities = masks.probabilities(every_query).detach()
    # Stored in float32, of every third row and column.
    compare_tensors("outputs", probabilities[..., ::3, ::3], theirs["probabilities"], limit=1e-6, name="masks")
    for image, target in enumerate(make_targets(margin=margin)):
        costs = torch.stack(compute_mask_costs(masks, image, target))
        expected = theirs[f"costs_{image}"]
        compare_terms(*(dict(enumerate(x.ravel().tolist())) for x in (costs, expected)), limit=1e-9, kind="assignment")
    losses = torch.stack(losses_of(masks, margin))
    compare_terms(*(dict(enumerate(x.ravel().tolist())) for x in (losses, theirs["losses"])), limit=1e-9)
    losses.sum().backward()
    check_gradients({name: p.grad for name, p in branch.named_parameters()}, theirs, tolerance=1e-9)
