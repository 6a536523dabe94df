"""Boxes: formats, clipping, overlap.

Corner boxes are (x1, y1, x2, y2), center boxes (cx, cy, w, h); both in whatever unit the caller keeps.
Every function computes in float32 at least, whatever autocast says: in half precision a box of a large image
loses whole pixels, and the products of its sides overflow.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Convert to float32, or leave as it is where it is float32 or float64 already."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def cxcywh_to_xyxy(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Convert center boxes to corner boxes."""
    cx, cy, w, h = at_least_float32(boxes).unbind(-1)
    return torch.stack((cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h), dim=-1)


def xyxy_to_cxcywh(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Convert corner boxes to center boxes."""
    x1, y1, x2, y2 = at_least_float32(boxes).unbind(-1)
    return torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), dim=-1)


def clip_to_sizes(boxes: Float[Tensor, "b *n 4"], sizes: Float[Tensor, "#b 2"]) -> Float[Tensor, "b *n 4"]:
    """Cut the corner boxes of each image to its (height, width), or all to a single one."""
    limits = sizes.flip(-1).repeat(1, 2).to(boxes.dtype)
    return boxes.clamp(min=0).minimum(limits.view(-1, *[1] * (boxes.ndim - 2), 4))


def boxes_as_rows(boxes: Float[Tensor, "b n 4"]) -> tuple[Float[Tensor, "r 4"], Int[Tensor, " r"]]:
    """Flatten boxes to one image after another; return them and the image of each."""
    images = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand(boxes.shape[:2])
    return boxes.flatten(0, 1), images.flatten()


def area(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Compute the area of corner boxes; negative sides count as they are."""
    boxes = at_least_float32(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*n"]:
    """Compute the intersection over union of corner boxes, in [0, 1], element by element under broadcasting.

    All pairs of ``n`` and ``m`` boxes are ``iou(a[:, None], b)``. Two boxes without area give 0, not NaN.
    """
    return _overlap(a, b)[0]


def generalized_iou(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"], *, eps: float = 0.0) -> Float[Tensor, "*n"]:
    """Compute the generalized IoU of corner boxes, in [-1, 1], element by element under broadcasting.

    GIoU = IoU - (hull - union) / hull, with ``hull`` the smallest box around both.

    Args:
        a: boxes.
        b: boxes.
        eps: added to what is divided by, as some codes do; in the square of the boxes' unit.

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, algorithm 1. Checked against
    torchvision.ops.generalized_box_iou. Differs where both boxes are one and the same point: 0, not NaN.
    """
    overlap, union = _overlap(a, b, eps)
    a, b = at_least_float32(a), at_least_float32(b)
    sides = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    hull = sides[..., 0].clamp(min=0) * sides[..., 1].clamp(min=0)
    return overlap - (hull - union) / _nonzero(hull, eps)


def _overlap(a: Tensor, b: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    a, b = at_least_float32(a), at_least_float32(b)
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = sides[..., 0].clamp(min=0) * sides[..., 1].clamp(min=0)
    union = area(a) + area(b) - intersection
    return intersection / _nonzero(union, eps), union


def _nonzero(x: Tensor, eps: float) -> Tensor:
    if eps:
        return x + eps
    return torch.where(x == 0, torch.ones_like(x), x)


def inverse_sigmoid(x: Float[Tensor, "*n"], eps: float = 1e-5) -> Float[Tensor, "*n"]:
    """Compute log(x / (1 - x)), both sides kept above ``eps``."""
    x = at_least_float32(x).clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
