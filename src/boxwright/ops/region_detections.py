"""From what is said about regions to the objects of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.boxes import clip_xyxy
from boxwright.ops.grouped_nms import survivors
from boxwright.structures import Detections, ImageSize

MIN_SIDE = 1e-2


class Found(NamedTuple):
    """As many objects of every picture, best first; those that are not ``usable`` only fill up.

    ``boxes`` are corner boxes in pixels of the network's input.
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    usable: Bool[Tensor, "b n"]


def select_detections(
    scores: Float[Tensor, "b r k"],
    boxes: Float[Tensor, "b r #k 4"],
    *,
    score_threshold: float,
    nms_threshold: float,
    max_candidates: int,
    max_detections: int,
) -> Found:
    """The best (region, class) pairs that no better one of their class covers.

    Nothing depends on how many survive, so that the selection can be exported.

    Args:
        scores: of every class, in [0, 1]; 0 for regions that only fill up.
        boxes: of every class or of all together, cut to the picture, in pixels of the network's input.
        score_threshold: pairs that do not exceed it are left out.
        nms_threshold: IoU above which the worse one of two is left out, in [0, 1].
        max_candidates: the best pairs of a picture, before suppression.
        max_detections: most objects of a picture.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 3.1. Checked against torchvision 0.29.2's RoIHeads, which has no
    ``max_candidates``. Differs in filling up.
    """
    num_classes = scores.shape[2]
    best, places = scores.flatten(1).topk(min(max_candidates, scores.shape[1] * num_classes), 1)
    labels = places % num_classes
    own = places if boxes.shape[2] > 1 else places // num_classes
    candidates = boxes.flatten(1, 2).gather(1, own[..., None].expand(-1, -1, 4))
    sides = candidates[..., 2:] - candidates[..., :2]
    usable = (best > score_threshold) & (sides >= MIN_SIDE).all(-1)
    usable = survivors(candidates, best, labels, usable, nms_threshold)
    order = torch.where(usable, best, -1.0).topk(min(max_detections, best.shape[1]), 1).indices
    return Found(
        candidates.gather(1, order[..., None].expand(-1, -1, 4)),
        best.gather(1, order),
        labels.gather(1, order),
        usable.gather(1, order),
    )


def in_original_pixels(found: Found, image_sizes: Sequence[ImageSize]) -> list[Detections]:
    """What was found, in pixels of the original pictures and cut to them.

    Args:
        found: in pixels of the network's input.
        image_sizes: one per picture.
    """
    detections = []
    for boxes, scores, labels, usable, size in zip(*found, image_sizes, strict=True):
        scale_x, scale_y = size.width / size.input_width, size.height / size.input_height
        scaled = boxes[usable] * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        detections.append(Detections(clip_xyxy(scaled, size.height, size.width), scores[usable], labels[usable]))
    return detections
