"""From the scores and offsets of dense heads to detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import batched_nms

from boxwright.detections import Detections
from boxwright.ops.boxes import at_least_float32, clip_xyxy, resized
from boxwright.ops.finite import check_finite
from boxwright.structures import ImageSize

Decode = Callable[[Tensor, Tensor], Tensor]
"""(offsets, anchors), both (n, 4), to corner boxes in pixels of the network's input."""

Suppress = Callable[[Detections], Detections]
"""Candidates of one image, in any order, to those that are kept, best first."""


def dense_detections(
    scores: Sequence[Float[Tensor, "b _a k"]],
    offsets: Sequence[Float[Tensor, "b _a 4"]],
    anchors: Sequence[Float[Tensor, "_a 4"]],
    image_sizes: Sequence[ImageSize],
    *,
    decode: Decode,
    suppress: Suppress,
    score_threshold: float,
    pre_nms_top_k: int,
    max_detections: int,
) -> list[Detections]:
    """Detections of each image, best first, in pixels of the original image.

    Of each level the best (anchor, class) pairs above the threshold are decoded, cut to the image and, over all
    levels together, suppressed by better ones. Of equal scores the first is the better one.

    Args:
        scores: of each level, in [0, 1].
        offsets: of each level, what ``decode`` takes.
        anchors: of each level, in pixels of the network's input.
        image_sizes: one per image.
        decode: offsets and anchors to boxes.
        suppress: candidates to what is kept of them.
        score_threshold: pairs that do not exceed it are left out.
        pre_nms_top_k: most pairs of a level.
        max_detections: most detections of an image.

    Raises:
        ValueError: scores or offsets are not numbers.

    Source: Lin et al., RetinaNet, ICCV 2017, section 4.1. Checked against torchvision 0.29.2's RetinaNet and FCOS,
    which leave the order of equal scores to chance.
    """
    check_finite((*scores, *offsets))
    num_classes = scores[0].shape[-1]
    found = []
    for image, size in enumerate(image_sizes):
        candidates = []
        for level_scores, level_offsets, level_anchors in zip(scores, offsets, anchors, strict=True):
            flat = at_least_float32(level_scores[image]).flatten()
            places = _best(flat, score_threshold, pre_nms_top_k)
            at = places // num_classes
            boxes = decode(level_offsets[image, at], level_anchors[at])
            boxes = clip_xyxy(boxes, size.input_height, size.input_width)
            candidates.append(Detections(boxes, flat[places], places % num_classes))
        together = Detections(
            torch.cat([level.boxes for level in candidates]),
            torch.cat([level.scores for level in candidates]),
            torch.cat([level.labels for level in candidates]),
        )
        kept, best = suppress(together), slice(max_detections)
        corners = resized(kept.boxes[best], (size.input_height, size.input_width), (size.height, size.width))
        found.append(Detections(corners, kept.scores[best], kept.labels[best]))
    return found


def hard_nms(candidates: Detections, threshold: float) -> Detections:
    """Leave out what overlaps a better one of its class by more than ``threshold`` (IoU, in [0, 1]).

    What is left is best first; equal scores keep their order, which torchvision leaves to chance.
    """
    # Classes are set apart by adding to coordinates: in float32 many classes would cost them their fraction.
    boxes, scores = candidates.boxes.double(), candidates.scores.double()
    keep = batched_nms(boxes, scores, candidates.labels, threshold).sort().values
    keep = keep[candidates.scores[keep].sort(descending=True, stable=True).indices]
    return candidates.select(keep)


def _best(scores: Float[Tensor, " s"], threshold: float, count: int) -> Int[Tensor, " n"]:
    """Places of the best scores above the threshold, best first."""
    (places,) = torch.where(scores > threshold)
    found = scores[places]
    if len(found) > count:
        # Top k leaves the order of equal scores to chance; what it says for sure is the least score.
        places = places[found >= found.topk(count, sorted=False).values.min()]
        found = scores[places]
    return places[found.sort(descending=True, stable=True).indices[:count]]
