"""Which object a proposed region is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from boxwright.ops.box_matching import BACKGROUND, match_by_iou
from boxwright.regions.proposals import Proposals
from boxwright.regions.sampling import sample_balanced
from boxwright.structures import Targets

POSITIVE_SHARE = 0.25
"""Of the sampled regions of an image, at most so many have an object."""


class SampledRegions(NamedTuple):
    """Regions of all images, one after another.

    ``boxes`` are corner boxes in pixels of the network's input, of image ``images[i]``. ``objects`` is the object of
    each within its image, -1 for background; ``labels`` and ``wanted`` are that object's class and box, of background
    -1 and the region itself. ``shares`` is one divided by the regions of the same image.
    """

    boxes: Float[Tensor, "r 4"]
    images: Int[Tensor, " r"]
    objects: Int[Tensor, " r"]
    labels: Int[Tensor, " r"]
    wanted: Float[Tensor, "r 4"]
    shares: Float[Tensor, " r"]


@torch.no_grad()
def sample_regions(
    proposals: Proposals,
    targets: Sequence[Targets],
    *,
    positive_iou: float = 0.5,
    num_samples: int = 512,
    positive_share: float = POSITIVE_SHARE,
) -> SampledRegions:
    """Sample proposals, and the objects' own boxes, and give each an object or background.

    Args:
        proposals: of each image.
        targets: one per image.
        positive_iou: least IoU of a region with its object.
        num_samples: regions of an image, at most.
        positive_share: most of them with an object, as a share.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2.3, with the objects' boxes as in Detectron. Checked against
    torchvision 0.29.2's RoIHeads. Crowd regions are left out of the targets, so that proposals on them are background,
    as there.
    """
    per_image = []
    for image, (boxes, valid, target) in enumerate(zip(proposals.boxes, proposals.valid, targets, strict=True)):
        regions = torch.cat((boxes[valid], target.boxes.to(boxes.dtype)))
        objects = match_by_iou(regions, target.boxes.to(boxes.dtype), positive=positive_iou, negative=positive_iou)
        chosen = sample_balanced(objects, num_samples, positive_share)
        regions, objects = regions[chosen], objects[chosen]
        per_image.append(of_objects(regions, objects, image, target))
    return SampledRegions(*(torch.cat(field) for field in zip(*per_image, strict=True)))


def sampled(regions: SampledRegions | None) -> SampledRegions:
    """The regions that a head's output holds where it was made with targets.

    Raises:
        ValueError: it was made without.
    """
    if regions is None:
        raise ValueError("the loss needs an output that was made with the targets")
    return regions


def repeated(target: Targets, count: int) -> Targets:
    """Objects of an image over and over, ``count`` of them; none where it has none."""
    num_objects = len(target.labels)
    places = torch.arange(count if num_objects else 0, device=target.labels.device) % max(1, num_objects)
    masks = None if target.masks is None else target.masks[places]
    return Targets(target.labels[places], target.boxes[places], target.size, masks)


def select_positives(regions: SampledRegions) -> SampledRegions:
    """Those of the regions that have an object."""
    (places,) = torch.where(regions.objects != BACKGROUND)
    return SampledRegions(*(field[places] for field in regions))


@torch.no_grad()
def regions_to_proposals(regions: SampledRegions, boxes: Float[Tensor, "r 4"], num_images: int) -> Proposals:
    """What became of regions, for ``sample_regions`` to sample from once more.

    Without those that were the very box of their object, which it puts in again.

    Args:
        regions: of all images.
        boxes: what became of each, corner boxes in pixels of the network's input.
        num_images: how many images.
    """
    own = (regions.objects != BACKGROUND) & (regions.boxes == regions.wanted).all(1)
    per_image = [boxes[(regions.images == image) & ~own] for image in range(num_images)]
    scores = pad_sequence([torch.ones_like(x[:, 0]) for x in per_image], batch_first=True)
    return Proposals(pad_sequence(per_image, batch_first=True), scores, scores > 0)


def of_objects(
    regions: Float[Tensor, "r 4"], objects: Int[Tensor, " r"], image: int, target: Targets
) -> SampledRegions:
    """Regions of one image with their objects, -1 for background."""
    positive = objects != BACKGROUND
    labels, wanted = torch.full_like(objects, BACKGROUND), regions.clone()
    labels[positive] = target.labels[objects[positive]]
    wanted[positive] = target.boxes[objects[positive]].to(regions.dtype)
    images = torch.full_like(objects, image)
    shares = torch.full_like(regions[:, 0], 1 / max(1, len(regions)))
    return SampledRegions(regions, images, objects, labels, wanted, shares)
