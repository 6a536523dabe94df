"""AugFPN's soft selection of levels: its authors' own numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from torch import Tensor

from boxwright.regions.options import RoIOptions
from boxwright.regions.roi_extractor import RoIExtractor, RoISource
from conformance import compare, compare_tensors, note_inputs

pytestmark = pytest.mark.conforms("AugFPN", "augfpn")

CHANNELS, STRIDES, CELLS = 4, [4, 8, 16], 5
WEIGHTS = [f"weigh.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]


def pooling() -> RoIExtractor:
    pooling = RoIExtractor(RoISource(CHANNELS, STRIDES, RoIOptions(extractor="soft")), output_size=CELLS)
    set_weights(pooling)
    return pooling


def inputs() -> tuple[list[Tensor], Tensor, Tensor]:
    """Maps of two images of 96 x 128 pixels, and three regions of each, of very different sizes."""
    maps = [uniform(f"map {stride}", 2, CHANNELS, 96 // stride, 128 // stride) * 3 for stride in STRIDES]
    sides = torch.tensor([[12.0, 20], [30, 24], [110, 80]]).double().repeat(2, 1)
    corners = 8 + 6 * uniform("corners", 6, 2)
    return maps, torch.cat((corners, corners + sides), 1), torch.tensor([0, 0, 0, 1, 1, 1])


def test_equals_its_authors() -> None:
    with np.load(Path(__file__).parent / "data" / "augfpn_soft.npz") as numbers:
        theirs = dict(numbers)
    ours, (maps, boxes, images) = pooling(), inputs()
    note_inputs(maps)
    for x in maps:
        x.requires_grad_()
    (pooled,) = ours(maps, boxes, images)
    assert np.abs(theirs["pooled"]).max() > 1
    compare_tensors("outputs", pooled, theirs["pooled"], limit=1e-12, name="soft selection")

    (pooled * uniform("direction", *pooled.shape)).sum().backward()
    named = [*ours.named_parameters(), *((f"map {i}", x) for i, x in enumerate(maps))]
    assert [name for name, _ in named[:4]] == WEIGHTS
    for (name, x), norm, projection in zip(
        named, theirs["gradient_norms"], theirs["gradient_projections"], strict=True
    ):
        assert x.grad is not None
        projected = (x.grad * uniform(f"direction of {name}", *x.grad.shape)).sum().item()
        difference = max(abs(x.grad.norm().item() - norm), abs(projected - projection))
        compare("gradients", float(difference / norm), 1e-10, name="soft selection", of=name)
