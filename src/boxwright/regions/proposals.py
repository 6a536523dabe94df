"""From what a region proposal network says of anchors to the regions that are looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.box_deltas import decode_deltas
from boxwright.ops.boxes import at_least_float32, boxes_as_rows, clip_to_sizes
from boxwright.ops.nms import nms_top_k


class Proposals(NamedTuple):
    """As many regions of every image, best first; those that are not ``valid`` only fill up.

    ``boxes`` are corner boxes in pixels of the network's input; ``scores`` are in [0, 1].
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]

    def as_rows(self) -> tuple[Float[Tensor, "r 4"], Int[Tensor, " r"]]:
        """All boxes, image after image, and the image of each."""
        return boxes_as_rows(self.boxes)


@torch.no_grad()
def select_proposals(
    logits: Sequence[Float[Tensor, "b _n"]],
    deltas: Sequence[Float[Tensor, "b _n 4"]],
    anchors: Sequence[Float[Tensor, "_n 4"]],
    content: Float[Tensor, "#b 2"],
    *,
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_threshold: float,
    min_side: float = 1e-3,
) -> Proposals:
    """The best anchors of each level, cut to the image, without those that a better one of their level covers.

    Nothing depends on how many survive, so that the selection can be exported.

    Args:
        logits: of there being an object, of each level.
        deltas: deviations from the anchors.
        anchors: corner boxes.
        content: (height, width) of each image on the canvas, or of all of them.
        pre_nms_top_k: the best of each level.
        post_nms_top_k: regions of an image, over all levels; fewer where there are not so many candidates.
        nms_threshold: IoU above which the worse one of two is left out, in [0, 1].
        min_side: boxes with a shorter side are left out, in pixels.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.3; level by level as in Lin et al., Feature Pyramid
    Networks. Checked against torchvision 0.29.2's RegionProposalNetwork. Differs in filling up.
    """
    boxes, scores, levels = [], [], []
    for level, (of_level, offsets, own) in enumerate(zip(logits, deltas, anchors, strict=True)):
        best, places = at_least_float32(of_level).topk(min(pre_nms_top_k, of_level.shape[1]), 1)
        at = places[..., None].expand(-1, -1, 4)
        boxes.append(decode_deltas(offsets.gather(1, at), own[places]))
        scores.append(best.sigmoid())
        levels.append(torch.full_like(places, level))
    box, score, level_of = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1)
    box = clip_to_sizes(box, content)
    sides = box[..., 2:] - box[..., :2]
    valid = (sides >= min_side).all(-1)
    order, valid = nms_top_k(box, score, level_of, valid, threshold=nms_threshold, count=post_nms_top_k)
    return Proposals(box.gather(1, order[..., None].expand(-1, -1, 4)), score.gather(1, order), valid)
