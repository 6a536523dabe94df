"""Boxes as deviations from anchors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, xyxy_to_cxcywh

MAX_LOG_SCALE = math.log(1000 / 16)
"""How far a side may grow, as a logarithm: an anchor of 16 pixels to 1,000."""

Weights = tuple[float, float]
"""Factors of shifts and of growth."""

FAST_RCNN_WEIGHTS: Weights = (10.0, 5.0)
"""Of deviations from regions, published as (10, 10, 5, 5)."""


def encode_deltas(
    boxes: Float[Tensor, "*n 4"], anchors: Float[Tensor, "*n 4"], *, weights: Weights = (1.0, 1.0)
) -> Float[Tensor, "*n 4"]:
    """(dx, dy, dw, dh): the shift of the center in sides of the anchor, the logarithm of the growth of each side.

    Args:
        boxes: corner boxes with an area.
        anchors: corner boxes with an area, in the same unit.
        weights: what shifts and logarithms are multiplied by.

    Source: Girshick et al., R-CNN, CVPR 2014, appendix C. Checked against torchvision's BoxCoder.
    """
    box, anchor = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(anchors)
    shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    return torch.cat((shift * weights[0], (box[..., 2:] / anchor[..., 2:]).log() * weights[1]), -1)


def decode_deltas(
    deltas: Float[Tensor, "*#n 4"],
    anchors: Float[Tensor, "*#n 4"],
    *,
    weights: Weights = (1.0, 1.0),
    max_log_scale: float = MAX_LOG_SCALE,
) -> Float[Tensor, "*n 4"]:
    """Corner boxes from what ``encode_deltas`` makes of them.

    Args:
        deltas: (dx, dy, dw, dh).
        anchors: corner boxes.
        weights: what shifts and logarithms were multiplied by.
        max_log_scale: dw and dh count as no more than this, so that no side becomes infinite.
    """
    delta, anchor = at_least_float32(deltas), xyxy_to_cxcywh(anchors)
    center = delta[..., :2] / weights[0] * anchor[..., 2:] + anchor[..., :2]
    sides = (delta[..., 2:] / weights[1]).clamp(max=max_log_scale).exp() * anchor[..., 2:]
    return cxcywh_to_xyxy(torch.cat((center, sides), -1))
