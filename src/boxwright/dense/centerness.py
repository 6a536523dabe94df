"""Centerness: how far a point of a box is from its sides."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def compute_centerness(points: Float[Tensor, "n 2"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Compute the centerness of points: 1 in the middle of a box, 0 on its sides.

    sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)), with distances to the left, right, upper and lower side

    Args:
        points: (x, y), each inside its box.
        boxes: corner boxes.

    Source: Tian et al., FCOS, ICCV 2019, equation 3.
    """
    near, far = points - boxes[:, :2], boxes[:, 2:] - points
    return (torch.minimum(near, far) / torch.maximum(near, far)).prod(-1).sqrt()
