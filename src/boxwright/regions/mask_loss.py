"""The loss of masks of regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import roi_align

from boxwright.ops.boxes import at_least_float32
from boxwright.regions.assignment import SampledRegions
from boxwright.structures import LossTotals, Targets


def mask_loss(
    logits: Float[Tensor, "r s s"], regions: SampledRegions, targets: Sequence[Targets], totals: LossTotals
) -> Float[Tensor, ""]:
    """Binary cross entropy of the mask of each region's own class, the mean over its cells.

    It is divided by the regions with an object of the same image, and an average over images; an image without
    such regions counts as 0.

    Args:
        logits: of the masks.
        regions: with an object, all of them.
        targets: one per image, with masks.
        totals: of the optimizer step.

    Source: He et al., Mask R-CNN, ICCV 2017, section 3. Checked against torchvision 0.29.2's maskrcnn_loss, which
    divides by the regions of the batch: the same number wherever images have equally many.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        wanted = mask_targets(regions, targets, logits.shape[-1]).to(logits.dtype)
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2))
        counts = torch.bincount(regions.images, minlength=len(targets))
        return (entropy / (counts[regions.images] * totals.images_per_process)).sum()


@torch.no_grad()
def mask_targets(regions: SampledRegions, targets: Sequence[Targets], size: int) -> Float[Tensor, "r {size} {size}"]:
    """What part of each cell of its region is covered by the region's object, in [0, 1].

    Args:
        regions: with an object, all of them.
        targets: one per image, with masks.
        size: cells per side.

    Raises:
        ValueError: an image with objects has no masks.
    """
    wanted = regions.boxes.new_zeros(len(regions.boxes), size, size)
    for image, target in enumerate(targets):
        (own,) = torch.where(regions.images == image)
        if not len(own):
            continue
        if target.masks is None:
            raise ValueError("this head is trained on masks, and the targets have none")
        # Of the objects that some region has: an image may show hundreds.
        objects, places = regions.objects[own].unique(return_inverse=True)
        masks = target.masks[objects][:, None].to(wanted.dtype)
        rows = torch.cat((places[:, None].to(wanted.dtype), regions.boxes[own]), 1)
        wanted[own] = roi_align(masks, rows, size)[:, 0]
    return wanted
