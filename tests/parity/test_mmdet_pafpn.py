"""PAFPN beside mmdetection's and its authors': their numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from stored_gradients import check_gradients

from boxwright.necks.pafpn import PAFPN
from boxwright.structures import Features, Level, Spec
from conformance import compare_tensors, note_inputs

SPEC: Spec = {"c2": Level(5, 4), "c3": Level(6, 8), "c4": Level(7, 16), "c5": Level(8, 32)}
VARIANTS: dict[str, dict[str, Any]] = {
    "mmdet/max_pool": {"wiring": "mmdet", "extra_levels": 1},
    "mmdet/conv_input": {"wiring": "mmdet", "extra_levels": 2, "extra": "conv_input"},
    "mmdet/conv_output": {"wiring": "mmdet", "extra_levels": 2, "extra": "conv_output"},
    "authors/max_pool": {"wiring": "paper", "extra_levels": 1},
}
# Where the authors have ReLU, the convolutions of their pyramid have none.
PYRAMID_BIASES = {f"pyramid.{conv}.{name}.bias" for conv in ("lateral", "smooth") for name in SPEC}


def neck(variant: str) -> PAFPN:
    """A small one on the weights of ``formula.py``."""
    neck = PAFPN(SPEC, out_channels=4, **VARIANTS[variant])
    set_weights(neck)
    if variant.startswith("authors"):
        with torch.no_grad():
            for name in PYRAMID_BIASES:
                neck.get_parameter(name).zero_()
    return neck


def maps(variant: str) -> Features:
    """Odd sizes, but even ones for the authors, who upsample by 2 exactly."""
    height, width = (64, 96) if variant.startswith("authors") else (36, 43)
    return {
        name: uniform(f"map {name}", 1, level.channels, -(-height // level.stride), -(-width // level.stride))
        for name, level in SPEC.items()
    }


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "pafpn.npz") as numbers:
        return dict(numbers)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=pytest.mark.conforms("PAFPN", "panet" if name.startswith("authors") else "mmdet"))
        for name in VARIANTS
    ],
)
def test_outputs_and_gradients(theirs: dict[str, np.ndarray], variant: str) -> None:
    expected = {key.removeprefix(f"{variant}/"): x for key, x in theirs.items() if key.startswith(f"{variant}/")}
    ours = neck(variant)
    note_inputs(list(maps(variant).values()))
    levels = ours(maps(variant))
    assert list(levels) == [key for key in expected if not key.startswith("gradient")]
    for name, level in levels.items():
        # Stored in float32.
        compare_tensors("outputs", level, expected[name], limit=1e-6, of=name)

    sum((x * uniform(f"direction of {name}", *x.shape)).sum() for name, x in levels.items()).backward()
    without = PYRAMID_BIASES if variant.startswith("authors") else set()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters() if name not in without}
    check_gradients(gradients, expected, tolerance=1e-9)
