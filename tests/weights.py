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


@torch.no_grad()
def settle(detector: nn.Module, images: torch.Tensor) -> None:
    """Bring what a dense head predicts to the size that it has in use.

    Else all scores are 1, and boxes are so large that rounding shows.
    """
    output = detector.eval()(images)
    for name, maps, size in (("classes", "logits", 0.5), ("boxes", "deltas", 0.1)):
        predictor, levels = getattr(detector.head, name, None), getattr(output, maps, None)
        if isinstance(levels, tuple) and isinstance(predictor, nn.Module):
            *_, last = (child for child in predictor.modules() if isinstance(child, nn.Conv2d))
            factor = size / torch.cat(levels, 1).std()
            for parameter in last.parameters():
                parameter.mul_(factor)
