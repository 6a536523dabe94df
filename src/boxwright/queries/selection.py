"""Query selection: the best tokens of the encoder become queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.layers.predictions import run_in_full_precision
from boxwright.layers.tokens import LevelTokens, compute_cell_centers
from boxwright.ops.box_deltas import move_boxes
from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, iou
from boxwright.queries.matching import NormalizedTargets
from boxwright.structures import SelectionQuality


class Anchors(NamedTuple):
    """A box at every token, and True where it is valid.

    Box heads predict offsets before the sigmoid; ``boxes`` are before it too, and infinite where they are not valid. If
    the anchors are ``relative``, heads predict what ``move_boxes`` takes; ``boxes`` are center boxes, all zeros where
    they are not valid.
    """

    boxes: Float[Tensor, "b t 4"]
    valid: Bool[Tensor, "b t 1"]
    relative: bool = False

    def move(self, offsets: Float[Tensor, "b q 4"], tokens: Int[Tensor, "b q"] | None = None) -> Float[Tensor, "b q 4"]:
        """Move the anchors of some tokens, or of all; return center boxes."""
        boxes = self.boxes if tokens is None else _gather(self.boxes, tokens)
        return move_boxes(boxes, offsets) if self.relative else (offsets + boxes).sigmoid()


def make_anchors(tokens: LevelTokens, *, by_ratio: bool = False, relative: bool = False) -> Anchors:
    """Make a center box at every token, 0.05 * 2^level wide and high, relative to the image inside its padding.

    Boxes with a coordinate within 1 % of the border, or on padding, are not valid.

    Args:
        tokens: of all levels.
        by_ratio: see ``compute_cell_centers``.
        relative: see ``Anchors``.

    Source: fundamentalvision/Deformable-DETR 11169a6 (``gen_encoder_output_proposals``); lyuwenyu/RT-DETR 068dfde;
    relative ones, roboflow/rf-detr 35ac6ab.
    """
    centers = compute_cell_centers(tokens, by_ratio=by_ratio)
    sides = [centers.new_full((h * w, 2), 0.05 * 2**i) for i, (h, w) in enumerate(tokens.shapes)]
    side = torch.cat(sides).expand(centers.shape[0], -1, 2)
    boxes = torch.cat((centers, side), -1).expand(tokens.memory.shape[0], -1, -1)
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    if tokens.padding is not None:
        valid = valid & ~tokens.padding[..., None]
    if relative:
        return Anchors(boxes * valid, valid, relative=True)
    return Anchors(torch.where(valid, torch.log(boxes / (1 - boxes)), torch.inf), valid)


class Selection(NamedTuple):
    """The best tokens, best first: their content and the predictions from them.

    ``tokens`` are their indices. ``every_*`` are the predictions from all tokens, None where they were not computed.
    """

    content: Float[Tensor, "b q d"]
    logits: Float[Tensor, "b q k"]
    boxes_cxcywh_norm: Float[Tensor, "b q 4"]
    every_logits: Float[Tensor, "b t k"] | None
    every_boxes_cxcywh_norm: Float[Tensor, "b t 4"] | None
    tokens: Int[Tensor, "b q"]


def select_tokens(
    memory: Float[Tensor, "b t d"],
    anchors: Anchors,
    classes: nn.Linear,
    boxes: nn.Module,
    num_queries: int,
    *,
    by_first_class: bool = False,
    every_token: bool = False,
) -> Selection:
    """Score all tokens and select the best, as many as there are queries or tokens.

    Args:
        memory: tokens, zero where their anchors are not valid.
        anchors: of the tokens.
        classes: class head.
        boxes: box head; it predicts how far the anchor moves.
        num_queries: number of tokens to select.
        by_first_class: score by the first class alone, which stands for any object, rather than by the best class.
        every_token: run both heads on all tokens, also where the selected ones would do.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.2; Zhao et al., RT-DETR, CVPR 2024, section 4.3.
    """
    every_logits = every_boxes = None
    if every_token or not by_first_class:
        every_logits = classes(memory)
        scores = every_logits.detach()[..., 0] if by_first_class else every_logits.detach().amax(-1)
    else:
        scores = F.linear(memory, classes.weight[:1], classes.bias[:1]).detach()[..., 0]
    best = scores.topk(torch.sym_min(scores.shape[1], num_queries), dim=1).indices
    content = _gather(memory, best)
    if every_token:
        every_boxes = anchors.move(run_in_full_precision(boxes, memory))
        selected_boxes = _gather(every_boxes, best)
    else:
        selected_boxes = anchors.move(run_in_full_precision(boxes, content), best)
    logits = classes(content) if every_logits is None else _gather(every_logits, best)
    return Selection(content, logits, selected_boxes, every_logits, every_boxes, best)


@torch.no_grad()
def measure_selection(
    logits: Float[Tensor, "b q k"],
    boxes_cxcywh_norm: Float[Tensor, "b q 4"],
    targets: Sequence[NormalizedTargets],
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
) -> SelectionQuality:
    """Count the selected queries whose best score, and whose best IoU with an object, are above the thresholds.

    Args:
        logits: of the selected queries.
        boxes_cxcywh_norm: likewise.
        targets: one per image.
        score_threshold: in [0, 1].
        iou_threshold: in [0, 1].

    Source: Zhao et al., RT-DETR, CVPR 2024, section 5.3 and Table 4 (thresholds of 0.5). The authors published no code
    for it; that the IoU is the best with any object of the image is our reading.
    """
    confident = at_least_float32(logits).sigmoid().amax(-1) > score_threshold
    corners = cxcywh_to_xyxy(at_least_float32(boxes_cxcywh_norm))
    both = 0
    for image, target in enumerate(targets):
        if len(target.labels):
            objects = cxcywh_to_xyxy(target.boxes_cxcywh_norm).to(corners.device)
            overlap = iou(corners[image][:, None], objects).amax(-1)
            both += int((confident[image] & (overlap > iou_threshold)).sum())
    return SelectionQuality(confident.numel(), int(confident.sum()), both)


def _gather(x: Float[Tensor, "b t d"], indices: Int[Tensor, "b q"]) -> Float[Tensor, "b q d"]:
    return x.gather(1, indices[..., None].expand(-1, -1, x.shape[-1]))
