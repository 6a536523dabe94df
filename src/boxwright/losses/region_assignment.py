"""Which object a proposed region is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.losses.anchor_matching import BACKGROUND, match_by_iou
from boxwright.losses.region_sampling import balanced_sample
from boxwright.ops.proposals import Proposals
from boxwright.structures import Targets


class TrainingRegions(NamedTuple):
    """Regions of all pictures, one after another.

    ``boxes`` are corner boxes in pixels of the network's input, of picture ``images[i]``. ``objects`` is the object of
    each within its picture, -1 for background; ``labels`` and ``wanted`` are that object's class and box, of background
    -1 and the region itself. ``shares`` is one divided by the regions of the same picture.
    """

    boxes: Float[Tensor, "r 4"]
    images: Int[Tensor, " r"]
    objects: Int[Tensor, " r"]
    labels: Int[Tensor, " r"]
    wanted: Float[Tensor, "r 4"]
    shares: Float[Tensor, " r"]


@torch.no_grad()
def assign_regions(
    proposals: Proposals,
    targets: Sequence[Targets],
    *,
    positive_iou: float = 0.5,
    num_samples: int = 512,
    positive_share: float = 0.25,
) -> TrainingRegions:
    """Sample proposals, and the objects' own boxes, and give each an object or background.

    Args:
        proposals: of each picture.
        targets: one per picture.
        positive_iou: least IoU of a region with its object.
        num_samples: regions of a picture, at most.
        positive_share: most of them with an object, as a share.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2.3, with the objects' boxes as in Detectron. Checked against
    torchvision 0.29.2's RoIHeads.
    """
    pictures = []
    for image, (boxes, usable, target) in enumerate(zip(proposals.boxes, proposals.usable, targets, strict=True)):
        regions = torch.cat((boxes[usable], target.boxes.to(boxes.dtype)))
        objects = match_by_iou(regions, target.boxes.to(boxes.dtype), positive=positive_iou, negative=positive_iou)
        chosen = balanced_sample(objects, num_samples, positive_share)
        regions, objects = regions[chosen], objects[chosen]
        pictures.append(of_objects(regions, objects, image, target))
    return TrainingRegions(*(torch.cat(field) for field in zip(*pictures, strict=True)))


def of_objects(
    regions: Float[Tensor, "r 4"], objects: Int[Tensor, " r"], image: int, target: Targets
) -> TrainingRegions:
    """Regions of one picture with their objects, -1 for background."""
    positive = objects != BACKGROUND
    labels, wanted = torch.full_like(objects, BACKGROUND), regions.clone()
    labels[positive] = target.labels[objects[positive]]
    wanted[positive] = target.boxes[objects[positive]].to(regions.dtype)
    images = torch.full_like(objects, image)
    shares = torch.full_like(regions[:, 0], 1 / max(1, len(regions)))
    return TrainingRegions(regions, images, objects, labels, wanted, shares)
