"""Sampling of regions for training: matching with objects, and a random balanced choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.box_matching import BACKGROUND, match_by_iou
from boxwright.ops.image_draws import Purpose, image_generator
from boxwright.structures import Targets

POSITIVE_FRACTION = 0.25
"""Most regions with an object, as a fraction of the sampled regions of an image."""


class SampledRegions(NamedTuple):
    """Regions of all images with their targets, image after image.

    ``boxes`` are corner boxes in pixels of the network input, of image ``images[i]``. ``objects`` is the index of each
    region's object within its image, -1 for background; ``labels`` and ``target_boxes`` are the object's class and box,
    of background -1 and the region itself. ``weights`` is one divided by the regions of the same image.
    ``is_ground_truth`` is True for the boxes of objects, which are sampled from beside the proposals.
    """

    boxes: Float[Tensor, "r 4"]
    images: Int[Tensor, " r"]
    objects: Int[Tensor, " r"]
    labels: Int[Tensor, " r"]
    target_boxes: Float[Tensor, "r 4"]
    weights: Float[Tensor, " r"]
    is_ground_truth: Bool[Tensor, " r"]


@torch.no_grad()
def sample_regions(
    boxes: Float[Tensor, "b n 4"],
    valid: Bool[Tensor, "b n"],
    targets: Sequence[Targets],
    *,
    positive_iou: float = 0.5,
    num_samples: int = 512,
    positive_fraction: float = POSITIVE_FRACTION,
    stage: int = 0,
) -> SampledRegions:
    """Sample from proposals and the objects' own boxes, and match each region with an object or background.

    Args:
        boxes: proposals of each image, corner boxes in pixels of the network input.
        valid: proposals that do not just fill up.
        targets: one per image.
        positive_iou: least IoU of a region with its object.
        num_samples: regions of an image, at most.
        positive_fraction: most of them with an object, as a fraction.
        stage: of a cascade; every stage draws anew, also where images have seeds.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2.3, with the objects' boxes as in Detectron. Checked against
    torchvision 0.29.2's RoIHeads. Crowd regions are left out of the targets, so that proposals on them are background,
    as there.
    """
    ground_truth = [target.boxes.to(boxes.dtype) for target in targets]
    proposals = [of_image[own] for of_image, own in zip(boxes, valid, strict=True)]
    regions = [torch.cat(pair) for pair in zip(proposals, ground_truth, strict=True)]
    matched = [
        match_by_iou(own, objects, positive=positive_iou, negative=positive_iou)
        for own, objects in zip(regions, ground_truth, strict=True)
    ]
    per_image = []
    for image, target in enumerate(targets):
        seed = target.seed
        generator = None if seed is None else image_generator(seed, Purpose.REGIONS, boxes.device, stage=stage)
        sampled = sample_balanced(matched[image], num_samples, positive_fraction, generator)
        assigned = assign_targets(regions[image][sampled], matched[image][sampled], image, target)
        per_image.append(assigned._replace(is_ground_truth=sampled >= len(proposals[image])))
    return SampledRegions(*(torch.cat(field) for field in zip(*per_image, strict=True)))


def assign_targets(
    regions: Float[Tensor, "r 4"], objects: Int[Tensor, " r"], image: int, target: Targets
) -> SampledRegions:
    """Give regions of one image, all of them proposals, the targets of their objects, -1 for background."""
    positive = objects != BACKGROUND
    labels, target_boxes = torch.full_like(objects, BACKGROUND), regions.clone()
    labels[positive] = target.labels[objects[positive]]
    target_boxes[positive] = target.boxes[objects[positive]].to(regions.dtype)
    images = torch.full_like(objects, image)
    weights = torch.full_like(regions[:, 0], 1 / max(1, len(regions)))
    return SampledRegions(regions, images, objects, labels, target_boxes, weights, torch.zeros_like(positive))


def select_positives(regions: SampledRegions) -> SampledRegions:
    """Select the regions that have an object."""
    (indices,) = torch.where(regions.objects != BACKGROUND)
    return SampledRegions(*(field[indices] for field in regions))


def sample_balanced(
    matched: Int[Tensor, " a"], count: int, positive_fraction: float, generator: torch.Generator | None = None
) -> Int[Tensor, " s"]:
    """Sample regions with an object and background at random, and return their indices in rising order.

    Regions with an object are at most ``max_positives``; background fills up the rest. Fewer than ``count`` are
    sampled where there are not enough.

    Args:
        matched: the object of each region, ``BACKGROUND`` or ``IGNORED``.
        count: number of samples.
        positive_fraction: see ``max_positives``.
        generator: of the choice; torch's global one where None.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2.3. Checked against torchvision 0.29.2's
    BalancedPositiveNegativeSampler, which samples no object where the fraction is less than one region.
    """
    (positive,), (negative,) = torch.where(matched >= 0), torch.where(matched == BACKGROUND)
    num_positive = min(len(positive), max_positives(count, positive_fraction))
    num_negative = min(len(negative), count - num_positive)
    sampled = (
        positive[torch.randperm(len(positive), generator=generator, device=matched.device)[:num_positive]],
        negative[torch.randperm(len(negative), generator=generator, device=matched.device)[:num_negative]],
    )
    return torch.cat(sampled).sort().values


def max_positives(count: int, positive_fraction: float) -> int:
    """Count the regions with an object among ``count``, at most: the fraction rounded down, but at least one."""
    return max(1, int(count * positive_fraction))


def repeat_objects(target: Targets, count: int) -> Targets:
    """Repeat the objects of an image until they are ``count``; none where it has none."""
    num_objects = len(target.labels)
    indices = torch.arange(count if num_objects else 0, device=target.labels.device) % max(1, num_objects)
    masks = None if target.masks is None else target.masks[indices]
    return target._replace(labels=target.labels[indices], boxes=target.boxes[indices], masks=masks)
