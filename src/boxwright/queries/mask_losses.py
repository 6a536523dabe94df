"""Losses of the masks of matched queries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.losses.dice import dice_loss
from boxwright.ops.boxes import at_least_float32
from boxwright.queries.mask_branch import MaskFactors, multiply
from boxwright.queries.mask_points import MaskTargets, sample_points
from boxwright.queries.matching import Matches


def compute_mask_losses(
    masks: MaskFactors, matches: Matches, targets: Sequence[MaskTargets], count: float
) -> tuple[Float[Tensor, " l"], Float[Tensor, " l"]]:
    """Compute the losses of each layer, sums over its matches divided by ``count``: cross entropy and dice loss.

    Only masks of matched queries are made.

    Args:
        masks: of all images.
        matches: pairs of query and object; those of layers without masks are left out.
        targets: one per image, of all groups.
        count: divisor.

    Source: ``loss_masks`` of roboflow/rf-detr 35ac6ab. Checked against it, and against Intellindust-AI-Lab/EdgeCrafter
    706d037, whose masks fall to a logit of 0 at the border of the image. Differs in drawing points for an object, where
    theirs draw for each match.
    """
    num_layers, num_images = len(masks.maps), len(targets)
    rows, sizes = _group(matches, num_layers, num_images)
    layer, image, query, thing = (index[rows] for index in matches)
    queries = at_least_float32(masks.queries[layer, image, query]).split(sizes)
    offsets = at_least_float32(masks.offsets[layer, image, query]).split(sizes)
    # Taken apart at once: each index by itself would have a gradient of all images. By cells, so that the gradient has
    # channels last where the maps have.
    num_groups = masks.queries.shape[1] // masks.maps[0].shape[0]
    maps = [one for of_layer in masks.maps for one in of_layer.movedim(1, -1).unbind() * num_groups]
    starts = [0, *accumulate(len(target.masks) for target in targets)]
    losses = []
    for i, (things, cells) in enumerate(zip(thing.split(sizes), maps, strict=True)):
        own = i % num_images
        # Without a match too: every parameter stays part of the graph.
        logits = multiply(queries[i], cells, offsets[i])
        losses.append(_compare(logits, things - starts[own], targets[own], masks.size))
    entropy, dice = torch.stack(losses).unflatten(0, (num_layers, num_images)).sum(1).unbind(-1)
    return entropy / count, dice / count


def _group(matches: Matches, num_layers: int, num_images: int) -> tuple[Int[Tensor, " s"], list[int]]:
    """Order the matches by layer and image, and count those of each; layers beyond are left out."""
    groups = matches.layer * num_images + matches.image
    order = groups.argsort(stable=True)
    sizes = torch.bincount(groups, minlength=num_layers * num_images)[: num_layers * num_images].tolist()
    return order[: sum(sizes)], sizes


def _compare(
    logits: Float[Tensor, "n h w"], objects: Int[Tensor, " n"], target: MaskTargets, covered: tuple[int, int]
) -> Float[Tensor, " 2"]:
    """Sum up cross entropy and dice loss of masks at their most uncertain points and at others."""
    maps, points = logits[:, None], target.points
    with torch.no_grad():
        candidates = points.candidates[objects]
        certainty = sample_points(maps, candidates, target.size, covered)[:, 0].abs()
        chosen = certainty.topk(points.num_uncertain, largest=False).indices
        uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
        at = torch.cat((uncertain, points.others[objects]), 1)
        labels = target.look_up(at, objects).to(logits.dtype)
    x = sample_points(maps, at, target.size, covered)[:, 0]
    entropy = F.binary_cross_entropy_with_logits(x, labels, reduction="none").mean(1)
    return torch.stack((entropy.sum(), dice_loss(x, labels).sum()))
