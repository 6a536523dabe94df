"""AdamW or SGD, with its groups."""

from __future__ import annotations

import math

import torch
from torch import nn

from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector


def make_optimizer(detector: Detector, options: TrainOptions) -> torch.optim.Optimizer:
    """Over the trainable parameters: backbone at its own rate, norms and biases without decay unless asked for.

    Every group keeps its highest rate as ``peak_lr``, for ``set_lr``.

    Raises:
        ValueError: nothing is trainable, or a key of ``lr_factors`` names no trainable parameter.
    """
    backbone_lr = options.lr if options.backbone_lr is None else options.backbone_lr
    chosen: dict[tuple[float, float], list[nn.Parameter]] = {}
    factors = options.lr_factors or {}
    unused = set(factors)
    for name, parameters in detector.parameter_groups().items():
        lr = backbone_lr if name.startswith("backbone/") else options.lr
        decay = options.weight_decay if options.norm_decay or name.endswith("/decay") else 0.0
        for path, parameter in parameters:
            named = [key for key in factors if key in path.split(".")]
            unused -= set(named)
            factor = math.prod(factors[key] for key in named)
            chosen.setdefault((lr * factor, decay), []).append(parameter)
    if unused:
        raise ValueError(f"train.lr_factors: no trainable parameter has {', '.join(sorted(unused))} in its name")
    groups = [
        {"params": parameters, "lr": lr, "peak_lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in chosen.items()
    ]
    if not groups:
        raise ValueError("nothing to train: every parameter of this detector is frozen")
    # The fused forms do a step in one pass over memory.
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=options.momentum, fused=True)
    return torch.optim.AdamW(groups, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to ``factor`` of its highest rate; returns the highest of the rates now."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)
