"""Non-maximum suppression within groups, as a mask of fixed size."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.boxes import iou
from boxwright.ops.onnx_operators import APART, onnx_nms, onnx_top_k, operators_for_onnx


def nms_top_k(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n"],
    groups: Int[Tensor, "b n"],
    valid: Bool[Tensor, "b n"],
    *,
    threshold: float,
    count: int,
    num_groups: int,
) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Select the best boxes of each image that ``nms_keep_mask`` keeps, best first.

    Where there are fewer than ``count``, others fill up. Of equal scores the first is the better one. ``num_groups``
    are as many groups as there can be.

    Returns:
        Indices of boxes, and a mask that is False where they fill up.
    """
    valid = nms_keep_mask(boxes, scores, groups, valid, threshold, num_groups)
    ranked = torch.where(valid, scores, -1.0)
    if operators_for_onnx():
        _, indices = onnx_top_k(ranked, count)
    else:
        indices = ranked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return indices, valid.gather(1, indices)


def nms_keep_mask(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n"],
    groups: Int[Tensor, "b n"],
    valid: Bool[Tensor, "b n"],
    threshold: float,
    num_groups: int,
) -> Bool[Tensor, "b n"]:
    """Find the valid boxes that no better valid one of the same image and group suppresses.

    Args:
        boxes: corner boxes.
        scores: a box with a higher score is better.
        groups: within an image, from 0.
        valid: other boxes are neither kept nor suppress.
        threshold: IoU above which the worse one of two goes, in [0, 1].
        num_groups: as many groups as there can be; a graph that is traced for ONNX has it fixed.
    """
    if operators_for_onnx():
        return cast(Tensor, onnx_nms(boxes, scores, groups, valid, threshold, num_groups))
    image = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    # Groups of all images in one call: a loop over images would fix their number in an export.
    separate = groups * boxes.shape[0] + image
    (indices,) = torch.where(valid.flatten())
    # Groups are set apart by adding to coordinates: in float32 many groups would cost them their fraction.
    own, score = boxes.flatten(0, 1)[indices].double(), scores.flatten()[indices].double()
    group = separate.flatten()[indices]
    # Where it is needed: importing it takes a second.
    from torchvision.ops import batched_nms, nms

    if torch.compiler.is_compiling():
        # The other form looks at how many boxes there are, which an export cannot know.
        keep = nms(own + (group * APART)[:, None], score, threshold)
    else:
        keep = batched_nms(own, score, group, threshold)
    return torch.zeros_like(valid).flatten().index_fill(0, indices[keep], True).view_as(valid)


def find_suppressed(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    valid: Bool[Tensor, " n"],
    threshold: float,
    kept: int,
) -> Int[Tensor, " m"]:
    """Find the boxes of one image that ``nms_keep_mask`` drops in favor of one that it keeps, best first.

    A box is dropped in favor of the best one that is kept and overlaps it.

    Args:
        boxes: corner boxes.
        scores: as for ``nms_keep_mask``.
        groups: likewise.
        valid: likewise.
        threshold: likewise.
        kept: index of the box that is kept.
    """
    own = valid & (groups == groups[kept])
    keep = nms_keep_mask(boxes[None], scores[None], groups[None], own[None], threshold, int(groups.max()) + 1)[0]
    (keepers,), (dropped,) = torch.where(keep), torch.where(own & ~keep)
    keepers, dropped = (one[scores[one].argsort(descending=True, stable=True)] for one in (keepers, dropped))
    overlaps = iou(boxes[dropped, None].double(), boxes[keepers].double())
    # The first above the threshold; where rounding leaves none there, the one that overlaps most.
    above = torch.where(overlaps.amax(1, keepdim=True) > threshold, (overlaps > threshold).double(), overlaps)
    return dropped[keepers[above.argmax(1)] == kept]
