"""AugFPN's authors' own numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formula import set_weights, uniform
from stored_gradients import check_gradients

from boxwright.necks.augfpn import AugFPN
from boxwright.structures import Features, Level, Spec
from conformance import compare_tensors, note_inputs

pytestmark = pytest.mark.conforms("AugFPN", "augfpn")

# Sizes at 224 x 320 pixels, where the coarsest level is pooled to 1 x 1, 1 x 2 and 2 x 3.
SPEC: Spec = {"c4": Level(5, 16), "c5": Level(6, 32)}
VARIANTS: dict[str, dict[str, Any]] = {
    "faster_rcnn": {"extra_levels": 1},
    "retinanet": {"extra_levels": 2, "extra": "conv_input", "extra_context": True},
    "fcos": {"extra_levels": 2, "extra": "conv_output", "extra_context": True},
}


def neck(variant: str) -> AugFPN:
    """A small one on the weights of ``formula.py``."""
    neck = AugFPN(SPEC, out_channels=2, **VARIANTS[variant])
    set_weights(neck)
    return neck


def maps() -> Features:
    return {
        name: uniform(f"map {name}", 1, level.channels, 224 // level.stride, 320 // level.stride)
        for name, level in SPEC.items()
    }


@pytest.fixture(scope="module")
def authors() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "augfpn.npz") as numbers:
        return dict(numbers)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_and_gradients(authors: dict[str, np.ndarray], variant: str) -> None:
    expected = {key.removeprefix(f"{variant}/"): x for key, x in authors.items() if key.startswith(f"{variant}/")}
    ours = neck(variant)
    note_inputs(list(maps().values()))
    levels = ours(maps())
    assert set(levels) == {key for key in expected if not key.startswith("gradient")}
    for name, level in levels.items():
        # Stored in float32.
        compare_tensors("outputs", level, expected[name], limit=1e-6, of=name)

    sum((x * uniform(f"direction of {name}", *x.shape)).sum() for name, x in levels.items()).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    check_gradients(gradients, expected, tolerance=1e-9)
