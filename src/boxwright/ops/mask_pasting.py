"""Pasting: from small masks of boxes to masks of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from boxwright.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from boxwright.ops.masks import encode_mask
from boxwright.structures import RLE


def paste_masks(
    probabilities: Float[Tensor, "n s s"],
    boxes: Float[Tensor, "n 4"],
    size: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> tuple[RLE, ...]:
    """Paste masks over their boxes, as masks of an image.

    Args:
        probabilities: of the cells that a box consists of.
        boxes: corner boxes in pixels of the image, which they may leave.
        size: (height, width) of the image.
        threshold: pixels with a higher probability belong to the object.

    Source: He et al., Mask R-CNN, ICCV 2017, section 3.1 (inference). Checked against torchvision 0.29.2's
    paste_masks_in_image: a rim of zeros around the mask, boxes widened by as much and cut to whole pixels.
    """
    cells = probabilities.shape[-1]
    padded = F.pad(probabilities, (1, 1, 1, 1))
    centered = xyxy_to_cxcywh(boxes)
    sides = centered[:, 2:] * ((cells + 2) / cells)
    corners = cxcywh_to_xyxy(torch.cat((centered[:, :2], sides), 1)).long()
    image = torch.zeros(size, dtype=torch.bool)
    return tuple(
        _paste(mask, corner, image, threshold) for mask, corner in zip(padded.cpu(), corners.tolist(), strict=True)
    )


def _paste(mask: Float[Tensor, "s s"], corners: list[int], image: Bool[Tensor, "h w"], threshold: float) -> RLE:
    """Encode one mask; ``image`` is False everywhere, before and after."""
    (height, width), (x1, y1, x2, y2) = image.shape, corners
    shape = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
    large = F.interpolate(mask[None, None], size=shape, mode="bilinear", align_corners=False)[0, 0]
    top, left = max(y1, 0), max(x1, 0)
    bottom, right = max(top, min(y1 + shape[0], height)), max(left, min(x1 + shape[1], width))
    part = image[top:bottom, left:right]
    part.copy_(large[top - y1 : bottom - y1, left - x1 : right - x1] > threshold)
    rle = encode_mask(image)
    part.zero_()
    return rle
