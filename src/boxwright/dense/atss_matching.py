"""Matching of anchors with objects by a threshold that each object sets itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.box_matching import BACKGROUND
from boxwright.ops.boxes import iou

_INSIDE = 0.01
"""Least distance of an anchor's center from the sides of its object, in pixels; the authors' constant."""


def match_adaptively(
    anchors: Sequence[Float[Tensor, "_n 4"]], boxes: Float[Tensor, "n 4"], *, top_k: int = 9
) -> Int[Tensor, " a"]:
    """Match the anchors of all levels with objects (ATSS): an index for each, or ``BACKGROUND`` (-1).

    Candidates of an object are the ``top_k`` anchors of each level whose centers are nearest to its own, the first of
    equals. Those are matched with it that lie with their center inside of it and have an IoU of at least
    mean + standard deviation of the IoUs of its candidates. An anchor of several objects is matched with the one that
    it overlaps most, the first of equals.

    Args:
        anchors: corner boxes of each level, fine to coarse.
        boxes: of the objects, corner boxes.
        top_k: candidates of each level, at least 1.

    Source: Zhang et al., ATSS, CVPR 2020, algorithm 1. Checked against ATSSAssigner of Sense-X/Co-DETR 2665352, which
    is mmdetection's and leaves the order of equal distances to chance. Differs where an object has one candidate in
    all, which is matched here and never there, because one number has no standard deviation.
    """
    every = torch.cat(tuple(anchors))
    if not len(boxes):
        return torch.full((len(every),), BACKGROUND, device=every.device)
    centers, middles = (every[:, :2] + every[:, 2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = (middles[:, None] - centers).pow(2).sum(-1)  # n a
    first, candidates = 0, []
    for level in anchors:
        near = distances[:, first : first + len(level)].argsort(dim=1, stable=True)[:, :top_k]
        candidates.append(near + first)
        first += len(level)
    candidate = torch.cat(candidates, 1)  # n c
    overlap = iou(boxes[:, None], every[candidate])
    std = overlap.std(1, keepdim=True) if candidate.shape[1] > 1 else 0.0
    center = centers[candidate]
    inside = torch.cat((center - boxes[:, None, :2], boxes[:, None, 2:] - center), -1).amin(-1) > _INSIDE
    matched = (overlap >= overlap.mean(1, keepdim=True) + std) & inside
    best, index = distances.new_full(distances.shape, -1.0).scatter(1, candidate, overlap.where(matched, -1.0)).max(0)
    return index.where(best >= 0, BACKGROUND)
