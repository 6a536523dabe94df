"""Decoding: from predictions of regions to the detections of an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.box_deltas import FAST_RCNN_WEIGHTS, Weights, decode_deltas
from boxwright.ops.boxes import clip_to_sizes
from boxwright.ops.nms import nms_top_k
from boxwright.ops.ranking import rank
from boxwright.regions.options import DetectionOptions
from boxwright.regions.proposals import Proposals
from boxwright.structures import Decoded

MIN_DETECTION_SIDE = 1e-2
"""Detections with a shorter side are dropped, in pixels of the network input."""

CANDIDATES_PER_DETECTION = 20
"""Bound of the (region, class) pairs before NMS: its work grows with the square of their number."""


class RegionPrediction(NamedTuple):
    """Predictions of the second stage for the regions of each image.

    ``scores`` of every class are in [0, 1]; ``deltas`` are offsets from ``regions`` of every class, or one for all,
    multiplied by ``weights``.
    """

    regions: Proposals
    scores: Float[Tensor, "b r k"]
    deltas: Float[Tensor, "b r c 4"]
    weights: Weights = FAST_RCNN_WEIGHTS


@torch.no_grad()
def refine_boxes(
    deltas: Float[Tensor, "*b 4"], boxes: Float[Tensor, "*b 4"], box_limits: Float[Tensor, "_b 2"], weights: Weights
) -> Float[Tensor, "*b 4"]:
    """Move regions by their deltas, and cut them to the image; no gradient passes.

    Args:
        deltas: of the regions.
        boxes: the regions, corner boxes in pixels of the network input.
        box_limits: (height, width) that boxes are cut to, of each region's image.
        weights: of the deltas, see ``encode_deltas``.
    """
    return clip_to_sizes(decode_deltas(deltas, boxes, weights=weights), box_limits)


def decode_regions(
    prediction: RegionPrediction,
    box_limits: Float[Tensor, "#b 2"],
    valid_sizes: Float[Tensor, "#b 2"],
    options: DetectionOptions,
) -> Decoded:
    """Decode the boxes of all regions, cut them, select the best, and drop those without an area on their image.

    Args:
        prediction: of the regions.
        box_limits: (height, width) that boxes are cut to, of each image, or of all of them.
        valid_sizes: (height, width) of each image inside its padding, or of all of them.
        options: limits of detections.
    """
    selected = select_detections(*decode_candidates(prediction, box_limits), options)
    inside = valid_sizes.flip(-1)[:, None] - selected.boxes[..., :2] >= MIN_DETECTION_SIDE
    return selected._replace(valid=selected.valid & inside.all(-1))


def decode_candidates(
    prediction: RegionPrediction, box_limits: Float[Tensor, "#b 2"]
) -> tuple[Float[Tensor, "b r k"], Float[Tensor, "b r #k 4"]]:
    """Decode the boxes of all regions and cut them; return scores, 0 for regions that fill up, and boxes."""
    regions, scores, deltas, weights = prediction
    corners = decode_deltas(deltas, regions.boxes[:, :, None], weights=weights)
    return scores * regions.valid[..., None], clip_to_sizes(corners, box_limits)


def select_detections(
    scores: Float[Tensor, "b r k"], boxes: Float[Tensor, "b r #k 4"], options: DetectionOptions
) -> Decoded:
    """Select the best (region, class) pairs that no better one of their class suppresses.

    Of an image at most 20 ``max_detections`` pairs, the best, enter NMS. No shape depends on data, so that the
    selection can be exported.

    Args:
        scores: of every class, in [0, 1]; 0 for regions that fill up.
        boxes: of every class or of all together, cut to the image, in pixels of the network input.
        options: limits of detections.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 3.1. Checked against torchvision 0.29.2's RoIHeads, which has no
    bound before NMS. Differs in filling up.
    """
    candidates = rank_regions(scores, boxes, options)
    order, valid = suppress_regions(candidates, options, scores.shape[2])
    corners = candidates.boxes.gather(1, order[..., None].expand(-1, -1, 4))
    best = torch.where(valid, candidates.scores.gather(1, order), 0)
    return Decoded(corners, best, candidates.labels.gather(1, order), valid)


class RegionCandidates(NamedTuple):
    """(region, class) pairs before NMS, best first; ``pairs`` are region * classes + class."""

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]
    pairs: Int[Tensor, "b n"]


def rank_regions(
    scores: Float[Tensor, "b r k"], boxes: Float[Tensor, "b r #k 4"], options: DetectionOptions
) -> RegionCandidates:
    """Select the best (region, class) pairs of each image; see ``select_detections``."""
    num_classes = scores.shape[2]
    # Top k would leave the order of ties to chance.
    best, indices = rank(scores.flatten(1), CANDIDATES_PER_DETECTION * options.max_detections)
    labels = indices % num_classes
    own = indices if boxes.shape[2] > 1 else indices // num_classes
    candidates = boxes.flatten(1, 2).gather(1, own[..., None].expand(-1, -1, 4))
    sides = candidates[..., 2:] - candidates[..., :2]
    valid = (best > options.score_threshold) & (sides >= MIN_DETECTION_SIDE).all(-1)
    return RegionCandidates(candidates, best, labels, valid, indices)


def suppress_regions(
    candidates: RegionCandidates, options: DetectionOptions, num_classes: int
) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Select those that no better one of their class suppresses; return indices, and False where they fill up."""
    boxes, scores, labels, valid, _ = candidates
    threshold, count = options.nms_threshold, options.max_detections
    return nms_top_k(boxes, scores, labels, valid, threshold=threshold, count=count, num_groups=num_classes)
