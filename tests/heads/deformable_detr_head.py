"""Small Deformable DETR heads and their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from boxwright.heads.deformable_detr import DeformableDETR
from boxwright.queries import DecoderOptions
from boxwright.structures import Features, Level, Spec

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(16, 16), "c5": Level(10, 32)}
REFINE = {"refine": True}
TWO_STAGE = {"refine": True, "two_stage": True}
VARIANTS = {"base": {}, "refine": REFINE, "two stage": TWO_STAGE}
TOKENS = 8 * 12 + 4 * 6 + 2 * 3


DECODER = DecoderOptions(num_heads=2, feedforward_dim=32, num_layers=3)


def fresh_head(spec: Spec = SPEC, num_classes: int = 4, **options: Any) -> DeformableDETR:
    torch.manual_seed(0)
    defaults = {"hidden_dim": 16, "num_queries": 12, "decoder": DECODER}
    return DeformableDETR(spec, num_classes, **(defaults | options)).eval()


def small_head(spec: Spec = SPEC, num_classes: int = 4, **options: Any) -> DeformableDETR:
    """Build the same with weights away from their initial values, where zeros hide mistakes."""
    head = fresh_head(spec, num_classes, **options)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return head


def maps(height: int = 64, width: int = 96, spec: Spec = SPEC) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(2, level.channels, height // level.stride, width // level.stride, generator=generator)
        for name, level in spec.items()
    }


def padding_mask() -> Tensor:
    """Mask the padding of images of 64 x 96 and 40 x 64 pixels in one batch."""
    mask = torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[1, 40:], mask[1, :, 64:] = True, True
    return mask


def record_inputs(module: nn.Module) -> list[tuple[Tensor, ...]]:
    """Record the inputs of a module, call by call."""
    calls: list[tuple[Tensor, ...]] = []
    module.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    return calls
