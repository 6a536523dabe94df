"""A small RT-DETR head and what its tests ask of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boxwright.heads.rtdetr import RTDETR
from boxwright.structures import Features, Level, Spec, Targets

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)}


def small_head(num_classes: int = 4, **options: float | str) -> RTDETR:
    defaults = {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 32, "num_layers": 3, "num_queries": 12}
    torch.manual_seed(0)
    head = RTDETR(SPEC, num_classes, **(defaults | {"num_denoising": 8} | options))  # type: ignore[arg-type]
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
