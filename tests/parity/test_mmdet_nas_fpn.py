"""NAS-FPN beside mmdetection's: its numbers, made once with its code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform
from torch import nn

from boxwright.necks.nas_fpn import NASFPN
from boxwright.structures import Features, Level, Spec
from conformance import compare, compare_tensors, note_inputs

pytestmark = pytest.mark.conforms("NAS-FPN", "mmdet")

SPEC: Spec = {"c3": Level(5, 8), "c4": Level(6, 16), "c5": Level(7, 32), "c6": Level(4, 64), "c7": Level(3, 128)}
VARIANTS = {"three_levels": 3, "five_levels": 5, "training": 3}


def neck(variant: str) -> NASFPN:
    """A small one on the weights of ``formula.py``."""
    spec = dict(list(SPEC.items())[: VARIANTS[variant]])
    neck = NASFPN(spec, out_channels=3, repeats=2, wiring="mmdet")
    set_weights(neck)
    return neck.train(variant == "training")


def maps(variant: str) -> Features:
    """One cell of an image on the coarsest level, but four of two images in training."""
    batch, height, width = (2, 128, 256) if variant == "training" else (1, 128, 128)
    return {
        name: uniform(f"map {name}", batch, level.channels, height // level.stride, width // level.stride)
        for name, level in list(SPEC.items())[: VARIANTS[variant]]
    }


def statistics(module: nn.Module) -> np.ndarray:
    """Running means and variances of all norms in a row."""
    actual = [tensor for name, tensor in module.state_dict().items() if "running_" in name]
    return torch.cat(actual).numpy()


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "nas_fpn_mmdet.npz") as numbers:
        return dict(numbers)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_statistics_and_gradients(theirs: dict[str, np.ndarray], variant: str) -> None:
    expected = {key.removeprefix(f"{variant}/"): x for key, x in theirs.items() if key.startswith(f"{variant}/")}
    ours = neck(variant)
    note_inputs(list(maps(variant).values()))
    levels = ours(maps(variant))
    assert list(levels) == list(SPEC)
    for name, level in levels.items():
        # Stored in float32.
        compare_tensors("outputs", level, expected[name], limit=1e-6, of=name)
    difference = np.abs(statistics(ours) - expected["statistics"]).max()
    compare("outputs", float(difference), 1e-9, name="statistics", unit="absolute")

    sum((x * uniform(f"direction of {name}", *x.shape)).sum() for name, x in levels.items()).backward()
    parameters = dict(ours.named_parameters())
    names = expected["gradient_names"].tolist()
    assert set(names) == set(parameters)
    norms = expected["gradient_norms"]
    # With two values to a norm, all that a gradient before it consists of is the norm's epsilon.
    floor = 1e-3 * norms.max()
    for name, norm, projection in zip(names, norms, expected["gradient_projections"], strict=True):
        grad, direction = parameters[name].grad, uniform(f"direction of {name}", *parameters[name].shape)
        assert grad is not None
        # A projection of a wrong gradient of the right norm would be off by about the norm itself.
        of_norm = abs(grad.norm().item() - norm) / max(norm, floor)
        of_projection = abs((grad * direction).sum().item() - projection) / (norm + floor)
        compare("gradients", float(max(of_norm, of_projection)), 1e-6, of=name)
