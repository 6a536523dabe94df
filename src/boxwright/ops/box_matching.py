"""Matching of anchors with objects by their overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.boxes import iou
from boxwright.structures import Targets

BACKGROUND = -1
IGNORED = -2

LowQuality = Literal["none", "ties", "best"]


def match_by_iou(
    anchors: Float[Tensor, "a 4"],
    boxes: Float[Tensor, "n 4"],
    *,
    positive: float = 0.5,
    negative: float = 0.4,
    low_quality: LowQuality = "none",
) -> Int[Tensor, " a"]:
    """Match each anchor with an object: its index, ``BACKGROUND`` (-1) or ``IGNORED`` (-2).

    An anchor is matched with the object that it overlaps most, the first of equals, where the IoU is at least
    ``positive``. Below ``negative`` it is background, between the two it is ignored.

    Args:
        anchors: corner boxes.
        boxes: of the objects, corner boxes.
        positive: least IoU of an anchor with its object.
        negative: IoU below which an anchor is background; at most ``positive``.
        low_quality: anchors that are matched whatever their IoU is. ``ties``: those that no other anchor overlaps an
            object more than; each is matched with the object that it overlaps most itself (torchvision, Detectron).
            ``best``: for each object the first such anchor, matched with that object (EfficientDet). Of objects with
            the same anchor the first one has it.

    Source: Ren et al., Faster R-CNN, section 3.1.2; Lin et al., RetinaNet, section 4. Checked against torchvision
    0.29.2's Matcher. Differs where no anchor overlaps an object at all: there every anchor would be matched with it.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    overlap = iou(boxes[:, None], anchors)  # n a
    best, nearest = overlap.max(0)
    matched = torch.where(best < negative, BACKGROUND, IGNORED)
    matched = torch.where(best >= positive, nearest, matched)
    if low_quality == "ties":
        most = overlap.amax(1, keepdim=True)
        tied = ((overlap == most) & (most > 0)).any(0)
        matched = torch.where(tied, nearest, matched)
    elif low_quality == "best":
        # One after another, the first one last, so that it wins on every device.
        most, anchor = overlap.max(1)
        for index in reversed(torch.where(most > 0)[0].tolist()):
            matched[anchor[index]] = index
    return matched


class MatchedAnchors(NamedTuple):
    """Anchors that are matched with an object.

    Entry ``i`` is anchor ``anchor[i]`` of image ``image[i]``, with its object's box. ``labels`` are of every anchor,
    ``BACKGROUND`` where there is no object.
    """

    image: Int[Tensor, " s"]
    anchor: Int[Tensor, " s"]
    boxes: Float[Tensor, "s 4"]
    labels: Int[Tensor, "b a"]


def gather_matches(matched: Int[Tensor, "b a"], targets: Sequence[Targets]) -> MatchedAnchors:
    """Gather the anchors that are matched with an object, image by image.

    Args:
        matched: for each anchor of every image the index of its object, ``BACKGROUND`` or ``IGNORED``.
        targets: one per image.
    """
    image, anchor = torch.where(matched >= 0)
    first = torch.tensor([0, *(len(t.labels) for t in targets)], device=image.device).cumsum(0)
    objects = matched[image, anchor] + first[image]
    labels = torch.full_like(matched, BACKGROUND)
    labels[image, anchor] = torch.cat([t.labels for t in targets])[objects]
    return MatchedAnchors(image, anchor, torch.cat([t.boxes for t in targets])[objects], labels)
