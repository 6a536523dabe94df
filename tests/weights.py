"""Weights and statistics that are far from special, where fresh ones are zeros, ones and ties."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Move every weight away from its start, where zeros and ones hide mistakes."""
    for name, parameter in module.named_parameters():
        spread = 0.5 if ".classes." in name or "encoder_classes" in name else 0.1
        parameter.add_(torch.randn_like(parameter) * spread)
    for child in module.modules():
        if isinstance(child, nn.Embedding) and child.padding_idx is not None:
            child.weight[child.padding_idx] = 0


@torch.no_grad()
def calibrate(module: nn.Module, images: torch.Tensor) -> None:
    """Give every batch norm the statistics of ``images``: else each layer shrinks what the one before put out."""
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    module.train()(images)
    for norm in norms:
        norm.momentum = 0.1
