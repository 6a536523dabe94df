"""A small RT-DETR head, its inputs and its loss terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from boxwright.heads.rtdetr import RTDETR
from boxwright.queries import DenoisingOptions, RefiningDecoderOptions
from boxwright.structures import Features, Level, Spec, Targets

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)}


DECODER = RefiningDecoderOptions(num_heads=2, feedforward_dim=32, num_layers=3)
DENOISING = DenoisingOptions(num_queries=8)
NO_DENOISING = DenoisingOptions(num_queries=0)


def small_head(num_classes: int = 4, **options: Any) -> RTDETR:
    torch.manual_seed(0)
    defaults = {"hidden_dim": 16, "num_queries": 12, "decoder": DECODER, "denoising": DENOISING}
    head = RTDETR(SPEC, num_classes, **(defaults | options))
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name != "denoising_classes.weight":
                parameter.add_(0.1 * torch.randn_like(parameter))
    return head.eval()


def maps(batch: int = 2, height: int = 64, width: int = 64) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, level.channels, height // level.stride, width // level.stride, generator=generator)
        for name, level in SPEC.items()
    }


def terms(head: RTDETR, targets: list[Targets], seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return head.loss(head(maps(len(targets)), None, targets), targets)


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
