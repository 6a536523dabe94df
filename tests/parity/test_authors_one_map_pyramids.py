"""Pyramids of one map beside their authors': their numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from formula import set_weights, uniform
from stored_gradients import check_gradients
from torch import nn

from boxwright.necks.averaged_pyramid import AveragedPyramid
from boxwright.necks.multi_scale_projector import MultiScaleProjector
from boxwright.necks.simple_pyramid import SimplePyramid
from boxwright.structures import Level, Spec
from conformance import compare_tensors, note_inputs

ONE, TWO, THREE = (
    {name: Level(8, 16) for name in names} for names in (["c4"], ["block10", "block11"], ["block2", "block5", "block8"])
)
NECKS: dict[str, tuple[nn.Module, Spec]] = {
    "simple": (SimplePyramid(ONE, out_channels=4, extra_levels=1), ONE),
    "averaged": (AveragedPyramid(TWO), TWO),
    "averaged_projected": (AveragedPyramid(TWO, out_channels=4), TWO),
    "projector_layer": (MultiScaleProjector(THREE, out_channels=6, num_blocks=2), THREE),
    "projector_batch": (
        MultiScaleProjector(THREE, out_channels=6, scales=(1.0, 0.5), num_blocks=2, norm="batch"),
        THREE,
    ),
}

AUTHORS = {"simple": "detectron2", "averaged": "edgecrafter", "projector": "rfdetr"}


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "one_map_pyramids.npz") as numbers:
        return dict(numbers)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.conforms("pyramids of one map", AUTHORS[name.partition("_")[0]]))
        for name in NECKS
    ],
)
def test_outputs_and_gradients(theirs: dict[str, np.ndarray], name: str) -> None:
    expected = {key.removeprefix(f"{name}/"): x for key, x in theirs.items() if key.startswith(f"{name}/")}
    neck, spec = NECKS[name]
    set_weights(neck.eval())
    maps = {key: uniform(f"map {key}", 2, level.channels, 4, 6) for key, level in spec.items()}
    note_inputs(list(maps.values()))
    levels = neck(maps)
    assert list(levels) == [key for key in expected if not key.startswith("gradient")]
    for key, level in levels.items():
        # Stored in float32.
        compare_tensors("outputs", level, expected[key], limit=1e-6, of=key)
    sum((x * uniform(f"direction of {key}", *x.shape)).sum() for key, x in levels.items()).backward()
    check_gradients({key: p.grad for key, p in neck.named_parameters()}, expected, tolerance=1e-9)
