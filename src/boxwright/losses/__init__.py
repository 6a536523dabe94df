"""Losses: predictions and targets to scalars."""

from __future__ import annotations

from boxwright.losses.alignment import alignment_loss
from boxwright.losses.dice import dice_loss
from boxwright.losses.distribution import distillation_loss, fine_grained_localization_loss
from boxwright.losses.focal import sigmoid_focal_loss, summed_focal_loss, summed_focal_loss_of_levels
from boxwright.losses.iou_aware import iou_aware_loss
from boxwright.losses.matchability import matchability_loss
from boxwright.losses.varifocal import varifocal_loss

__all__ = [
    "alignment_loss",
    "dice_loss",
    "distillation_loss",
    "fine_grained_localization_loss",
    "iou_aware_loss",
    "matchability_loss",
    "sigmoid_focal_loss",
    "summed_focal_loss",
    "summed_focal_loss_of_levels",
    "varifocal_loss",
]
