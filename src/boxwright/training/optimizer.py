"""AdamW with its groups."""

from __future__ import annotations

import torch

from boxwright.detector import Detector
from boxwright.training.options import TrainOptions


def make_optimizer(detector: Detector, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW over the trainable parameters: backbone at its own rate, norms and biases without decay.

    Every group keeps its highest rate as ``peak_lr``, for ``set_lr``.
    """
    backbone_lr = options.lr if options.backbone_lr is None else options.backbone_lr
    groups = []
    for name, parameters in detector.parameter_groups().items():
        lr = backbone_lr if name.startswith("backbone/") else options.lr
        decay = 0.0 if name.endswith("/no_decay") else options.weight_decay
        groups.append({"params": [p for _, p in parameters], "lr": lr, "peak_lr": lr, "weight_decay": decay})
    if not groups:
        raise ValueError("nothing to train: every parameter of this detector is frozen")
    # The fused form does a step in one pass over memory.
    return torch.optim.AdamW(groups, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to ``factor`` of its highest rate; returns the highest of the rates now."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)
