"""The option that says how far anchors are apart reaches every head that has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from boxwright.dense.options import AnchorOptions
from boxwright.heads.fcos import FCOS
from boxwright.heads.retinanet import RetinaNet
from boxwright.ops.anchors import AnchorGrid
from boxwright.regions.options import RPNOptions
from boxwright.regions.proposals import RPN
from boxwright.structures import Level, Spec

SPEC: Spec = {"c3": Level(8, 8), "c4": Level(8, 16), "c5": Level(8, 32)}
SHAPES = [(13, 22), (7, 11), (4, 6)]
"""Of an input of 104 x 176 pixels, which the coarsest stride divides along neither side."""

Anchors = tuple[Tensor, ...]


def of_retinanet(grid: AnchorGrid) -> Anchors:
    return RetinaNet(SPEC, 2, num_convs=0, anchors=AnchorOptions(anchor_grid=grid)).anchors(SHAPES)


def of_fcos(grid: AnchorGrid) -> Anchors:
    return FCOS(SPEC, 2, num_convs=0, anchor_grid=grid).anchors(SHAPES)


def of_rpn(grid: AnchorGrid) -> Anchors:
    rpn = RPN(8, [8, 16, 32], RPNOptions(anchor_grid=grid))
    return rpn([torch.zeros(1, 8, height, width) for height, width in SHAPES]).anchors


@pytest.mark.parametrize("make", [of_retinanet, of_fcos, of_rpn])
@pytest.mark.parametrize(
    ("grid", "steps"),
    [("level", [(8, 8), (16, 16), (32, 32)]), ("padded_input", [(8, 8), (104 // 7, 16), (26, 176 // 6)])],
)
def test_steps_between_anchors(
    make: Callable[[AnchorGrid], Anchors], grid: AnchorGrid, steps: list[tuple[int, int]]
) -> None:
    for anchors, (height, width), (down, across) in zip(make(grid), SHAPES, steps, strict=True):
        cells = anchors.view(height, width, -1, 4)
        assert (cells[:, 1:] - cells[:, :-1] == torch.tensor([across, 0, across, 0])).all()
        assert (cells[1:] - cells[:-1] == torch.tensor([0, down, 0, down])).all()
