"""RFP beside mmdetection's DetectoRS: their numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formula import make_images, set_weights, uniform
from torch import Tensor, nn

from boxwright.backbones.rfp import RFP
from boxwright.layers.switchable_conv import SwitchableConv2d
from conformance import compare, note_inputs

pytestmark = pytest.mark.conforms("RFP", "mmdet")

VARIANTS: dict[str, dict[str, Any]] = {
    "two_steps/training": {"extra_levels": 1},
    "two_steps/evaluation": {"extra_levels": 2, "extra": "conv_input"},
    "three_steps/evaluation": {"steps": 3, "extra_levels": 2, "extra": "conv_output"},
    "switchable/training": {"atrous": "switchable", "extra_levels": 1},
}
CONVOLUTIONS = {"stride_1": {}, "stride_2": {"stride": 2}, "dilated": {"dilation": 2}}


def backbone(variant: str) -> RFP:
    """A small one on the weights of ``formula.py``, its feedback and its fusion too."""
    rfp = RFP(depth=50, width=2, levels=("c2", "c3", "c4", "c5"), out_channels=4, **VARIANTS[variant])
    set_weights(rfp)
    return rfp.train(variant.endswith("training"))


def images() -> Tensor:
    """Odd sizes at most levels; the coarsest has 3 x 3 cells, the least that mmcv reflects."""
    return make_images(2, 96)[:, :, :70, :91]


def convolution(variant: str) -> tuple[SwitchableConv2d, Tensor]:
    """With a map for it."""
    conv = SwitchableConv2d(3, 5, **CONVOLUTIONS[variant])
    set_weights(conv)
    return conv, uniform("map", 2, 3, 7, 8)


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "rfp_mmdet.npz") as numbers:
        return dict(numbers)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_and_gradients(theirs: dict[str, np.ndarray], variant: str) -> None:
    ours = backbone(variant)
    note_inputs(images())
    check(ours, ours(images()), variant, theirs)


@pytest.mark.parametrize("variant", CONVOLUTIONS)
def test_switchable_convolution(theirs: dict[str, np.ndarray], variant: str) -> None:
    ours, x = convolution(variant)
    note_inputs(x)
    check(ours, {"out": ours(x)}, variant, theirs)


def check(ours: nn.Module, levels: dict[str, Tensor], variant: str, theirs: dict[str, np.ndarray]) -> None:
    """Outputs, and gradients of a projection of all of them."""
    expected = {key.removeprefix(f"{variant}/"): x for key, x in theirs.items() if key.startswith(f"{variant}/")}
    assert list(levels) == [key for key in expected if not key.startswith("gradient")]
    for name, level in levels.items():
        # Stored in float32.
        difference = (np.abs(sparse(level) - expected[name]) / (1 + np.abs(expected[name]))).max()
        compare("outputs", float(difference), 1e-6, of=name)

    sum((x * uniform(f"direction of {name}", *x.shape)).sum() for name, x in levels.items()).backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    groups = grouped(ours)
    norms, projections = expected["gradient_norms"], expected["gradient_projections"]
    for (group, (norm, projection)), their_norm, their_projection in zip(
        groups.items(), norms, projections, strict=True
    ):
        # A projection of a wrong gradient of the right norm would be off by about the norm itself.
        difference = max(abs(norm - their_norm), abs(projection - their_projection))
        compare("gradients", float(difference / their_norm), 1e-9, of=group)


def sparse(level: Tensor) -> np.ndarray:
    """Select what is stored of a level: every third cell of a fine one."""
    step = 1 if level.shape[-1] < 10 else 3
    return level.detach()[:, :, ::step, ::step].numpy()


def grouped(ours: nn.Module) -> dict[str, tuple[float, float]]:
    """Norm and projection of the gradients of each block, and of each parameter that is in no block."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for name, parameter in ours.named_parameters():
        parts = name.split(".")
        group = ".".join(parts[:4]) if len(parts) > 2 and parts[2].startswith("layer") else name
        assert parameter.grad is not None
        direction = uniform(f"direction of {name}", *parameter.shape)
        groups.setdefault(group, []).append(
            (parameter.grad.square().sum().item(), (parameter.grad * direction).sum().item())
        )
    return {group: (sum(n for n, _ in both) ** 0.5, sum(p for _, p in both)) for group, both in groups.items()}
