"""AdamW or SGD, with its groups."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import nn

from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.training.sharding import is_sharded


def make_optimizer(detector: Detector, options: TrainOptions) -> torch.optim.Optimizer:
    """Make the optimizer of the trainable parameters.

    The backbone has its own rate; norms and biases do not decay unless the options say so. Every group holds its
    highest rate as ``peak_lr``, for ``set_lr``.

    Raises:
        ValueError: nothing is trainable, a key of ``lr_factors`` is in no trainable parameter's name, or none of the
            ``decayed_names``: of those some may belong to a part that was swapped for another.
    """
    optimizer = options.optimizer
    backbone_lr = options.lr if options.backbone_lr is None else options.backbone_lr
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    factors = optimizer.lr_factors or {}
    names = optimizer.decayed_names or ()
    unused, any_decayed = set(factors), not names
    for name, parameters in group_parameters(detector).items():
        lr = backbone_lr if name.startswith("backbone/") else options.lr
        for path, parameter in parameters:
            scaled = [key for key in factors if _has_in_order(path, key)]
            decayed = any(f".{key}." in f".{path}." for key in names)
            unused -= set(scaled)
            any_decayed |= decayed
            decays = optimizer.norm_decay or name.endswith("/decay") or decayed
            factor = math.prod(factors[key] for key in scaled)
            groups.setdefault((lr * factor, optimizer.weight_decay if decays else 0.0), []).append(parameter)
    if not groups:
        raise ValueError("nothing to train: every parameter of this detector is frozen")
    for option, missing in (("lr_factors", sorted(unused)), ("decayed_names", [] if any_decayed else list(names))):
        if missing:
            raise ValueError(
                f"train.optimizer.{option}: no trainable parameter has {', '.join(missing)} in its name; give other "
                f"names, or --train.optimizer.{option} null"
            )
    settings = [
        {"params": parameters, "lr": lr, "peak_lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]
    # The fused forms do a step in one pass over memory. That of SGD does not know shards.
    if optimizer.name == "sgd":
        implementation = "foreach" if is_sharded(detector) else "fused"
        return torch.optim.SGD(settings, momentum=optimizer.momentum, **{implementation: True})
    return torch.optim.AdamW(settings, fused=True)


def group_parameters(detector: Detector) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Group trainable parameters by what the optimizer tells apart: ``{backbone, other}`` x ``{decay, no_decay}``.

    Norms and biases, which have one dimension, do not decay.
    """
    groups: dict[str, list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            slot = "backbone" if name.startswith("backbone.") else "other"
            decay = "no_decay" if parameter.ndim <= 1 else "decay"
            groups[f"{slot}/{decay}"].append((name, parameter))
    return dict(groups)


def _has_in_order(path: str, key: str) -> bool:
    """Tell whether all names of a dotted key are in a dotted path, in this order; others may lie between."""
    names = iter(path.split("."))
    return all(name in names for name in key.split("."))


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to ``factor`` of its highest rate; returns the highest of the rates now."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)
