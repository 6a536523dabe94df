"""Losses: predictions and targets to scalars."""

from __future__ import annotations

from boxwright.losses.focal import sigmoid_focal_loss, summed_focal_loss, summed_focal_loss_of_levels
from boxwright.losses.varifocal import varifocal_loss

__all__ = [
    "sigmoid_focal_loss",
    "summed_focal_loss",
    "summed_focal_loss_of_levels",
    "varifocal_loss",
]
