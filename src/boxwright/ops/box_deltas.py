"""Boxes as deltas from anchors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, xyxy_to_cxcywh

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest growth of a side, as a logarithm: an anchor of 16 pixels to 1,000."""

Weights = tuple[float, float]
"""Factors of shifts and of growth of sides."""

FAST_RCNN_WEIGHTS: Weights = (10.0, 5.0)
"""Weights of deltas from regions, published as (10, 10, 5, 5)."""

SMOOTH_L1_BETA = 1 / 9
"""Distance from which smooth L1 of deltas is linear: Detectron's and torchvision's for anchors, and torchvision's for
regions."""


def encode_deltas(
    boxes: Float[Tensor, "*n 4"], anchors: Float[Tensor, "*n 4"], *, weights: Weights = (1.0, 1.0)
) -> Float[Tensor, "*n 4"]:
    """Encode boxes as (dx, dy, dw, dh): shifts of the center in sides of the anchor, logarithms of the sides' growth.

    Args:
        boxes: corner boxes with an area.
        anchors: corner boxes with an area, in the same unit.
        weights: factors of shifts and of logarithms.

    Source: Girshick et al., R-CNN, CVPR 2014, appendix C. Checked against torchvision's BoxCoder.
    """
    box, anchor = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(anchors)
    shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    return torch.cat((shift * weights[0], (box[..., 2:] / anchor[..., 2:]).log() * weights[1]), -1)


def move_boxes(boxes: Float[Tensor, "*#n 4"], deltas: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*n 4"]:
    """Move center boxes by (dx, dy, dw, dh): shifts in sides of the box, logarithms of the sides' growth.

    Args:
        boxes: center boxes.
        deltas: of each.
    """
    center, sides = boxes[..., :2], boxes[..., 2:]
    return torch.cat((deltas[..., :2] * sides + center, deltas[..., 2:].exp() * sides), -1)


def decode_deltas(
    deltas: Float[Tensor, "*#n 4"],
    anchors: Float[Tensor, "*#n 4"],
    *,
    weights: Weights = (1.0, 1.0),
    max_log_scale: float = MAX_LOG_SCALE,
) -> Float[Tensor, "*n 4"]:
    """Decode corner boxes, the inverse of ``encode_deltas``.

    Args:
        deltas: (dx, dy, dw, dh).
        anchors: corner boxes.
        weights: factors of shifts and of logarithms.
        max_log_scale: dw and dh count as no more than this, so that no side becomes infinite.
    """
    delta, anchor = at_least_float32(deltas), xyxy_to_cxcywh(anchors)
    center = delta[..., :2] / weights[0] * anchor[..., 2:] + anchor[..., :2]
    sides = (delta[..., 2:] / weights[1]).clamp(max=max_log_scale).exp() * anchor[..., 2:]
    return cxcywh_to_xyxy(torch.cat((center, sides), -1))
