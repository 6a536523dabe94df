"""Weights and statistics that are far from special, where fresh ones are zeros, ones and ties."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Move every weight away from its start, where zeros and ones hide mistakes."""
    for name, parameter in module.named_parameters():
        spread = 0.5 if ".classes." in name or "encoder_classes" in name else 0.1
        if ".switch." in name:
            spread = 0.01  # Unbounded factors: of other images, some layers later, they would make infinities.
        parameter.add_(torch.randn_like(parameter) * spread)
    for child in module.modules():
        if isinstance(child, nn.Embedding) and child.padding_idx is not None:
            child.weight[child.padding_idx] = 0


@torch.no_grad()
def calibrate(module: nn.Module, images: torch.Tensor) -> None:
    """Give every batch norm the statistics of ``images``: else each layer makes what the one before put out smaller."""
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    module.train()(images)
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def settle(detector: nn.Module, images: torch.Tensor) -> None:
    """Bring the predictions of a dense or two-stage head to the size that they have in use.

    Else all scores are 1, and boxes are so large that rounding shows.
    """
    output = detector.eval()(images)
    if hasattr(detector.head, "first_stage"):
        _settle_stages(detector, images)
        return
    for name, maps, size in (("classes", "logits", 0.5), ("boxes", "offsets", 0.1)):
        predictor, levels = getattr(detector.head, name, None), getattr(output, maps, None)
        if isinstance(levels, tuple) and isinstance(predictor, nn.Module):
            *_, last = (child for child in predictor.modules() if isinstance(child, nn.Conv2d))
            _scale(last, size / torch.cat(levels, 1).std())


def _settle_stages(detector: nn.Module, images: torch.Tensor) -> None:
    """Scale the first stage, then the box branches, to predictions that tell regions apart."""
    rpn, output = detector.head.first_stage.rpn, detector(images)
    _scale(rpn.logits, 1 / torch.cat(output.rpn.logits, 1).std())
    _scale(rpn.deltas, 0.1 / torch.cat(output.rpn.deltas, 1).std())
    output = detector(images)
    proposals = detector.head.first_stage.propose(output.rpn, output.box_limits, training=False)
    for branch in getattr(detector.head, "stages", None) or [detector.head.boxes]:
        predictions = branch(output.maps, *proposals.as_rows())
        _scale(branch.classes, 1 / predictions.logits.std())
        _scale(branch.boxes, 0.5 / predictions.deltas.std())


def _scale(layer: nn.Module, factor: torch.Tensor) -> None:
    for parameter in layer.parameters():
        parameter.mul_(factor)
