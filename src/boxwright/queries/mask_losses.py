"""Losses of the masks of matched queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.losses.dice import dice_loss
from boxwright.ops.boxes import at_least_float32
from boxwright.queries.mask_branch import MaskFactors
from boxwright.queries.mask_points import MaskTargets, place_points, sample_points
from boxwright.queries.mask_products import multiply_by_image
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
    of_layers = [sizes[i : i + num_images] for i in range(0, len(sizes), num_images)]
    counts = [sum(own) for own in of_layers]
    queries = at_least_float32(masks.queries[layer, image, query]).split(counts)
    offsets = at_least_float32(masks.offsets[layer, image, query]).split(counts)
    objects, losses = _join_objects(targets, masks.size), []
    for i, (things, own) in enumerate(zip(thing.split(counts), of_layers, strict=True)):
        # Without a match too: every parameter stays part of the graph.
        logits = multiply_by_image(queries[i], masks.maps[i], offsets[i], own)
        losses.append(_compare(logits, things, objects))
    entropy, dice = torch.stack(losses).unbind(-1)
    return entropy / count, dice / count


def _group(matches: Matches, num_layers: int, num_images: int) -> tuple[Int[Tensor, " s"], list[int]]:
    """Order the matches by layer and image, and count those of each; layers beyond are left out."""
    groups = matches.layer * num_images + matches.image
    order = groups.argsort(stable=True)
    sizes = torch.bincount(groups, minlength=num_layers * num_images)[: num_layers * num_images].tolist()
    return order[: sum(sizes)], sizes


class _Objects(NamedTuple):
    """The points of objects, placed on the maps, and 1 where they are in the object's mask, else 0.

    ``number`` is that of each object of the batch among those that have as many points; -1 for others.
    """

    number: Int[Tensor, " m"]
    candidates: Float[Tensor, "n c 2"]
    inside_candidates: Float[Tensor, "n c"]
    others: Float[Tensor, "n r 2"]
    inside_others: Float[Tensor, "n r"]
    num_uncertain: int


def _join_objects(targets: Sequence[MaskTargets], covered: tuple[int, int]) -> list[_Objects]:
    """Join the objects of all images whose size gives them as many points."""
    counts = [len(target.points.matching) for target in targets]
    images = torch.arange(len(targets)).repeat_interleave(torch.tensor([len(target.masks) for target in targets]))
    joined = []
    for count in dict.fromkeys(counts):
        own = [target for target, points in zip(targets, counts, strict=True) if points == count]
        is_own = torch.tensor([points == count for points in counts])[images]
        number = torch.where(is_own, is_own.cumsum(0) - 1, -1)
        columns = zip(*(_place_object_points(target, covered) for target in own), strict=True)
        candidates, inside_candidates, others, inside_others = map(torch.cat, columns)
        num_uncertain = own[0].points.num_uncertain
        joined.append(
            _Objects(number.to(candidates.device), candidates, inside_candidates, others, inside_others, num_uncertain)
        )
    return joined


def _place_object_points(target: MaskTargets, covered: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    candidates, others = target.points.candidates, target.points.others
    first, second = (place_points(points, target.size, covered) for points in (candidates, others))
    return first, target.look_up(candidates), second, target.look_up(others)


def _compare(
    logits: Float[Tensor, "n h w"], things: Int[Tensor, " n"], objects: Sequence[_Objects]
) -> Float[Tensor, " 2"]:
    """Sum up cross entropy and dice loss of masks at their most uncertain points and at others."""
    if len(objects) == 1:
        return _compare_at_points(logits, things, objects[0])
    total = logits.new_zeros(2)
    for own in objects:
        chosen = (own.number[things] >= 0).nonzero()[:, 0]
        total = total + _compare_at_points(logits[chosen], own.number[things[chosen]], own)
    return total


def _compare_at_points(
    logits: Float[Tensor, "n h w"], numbers: Int[Tensor, " n"], objects: _Objects
) -> Float[Tensor, " 2"]:
    maps = logits[:, None]
    with torch.no_grad():
        candidates = objects.candidates[numbers]
        certainty = sample_points(maps, candidates)[:, 0].abs()
        chosen = certainty.topk(objects.num_uncertain, largest=False).indices
        uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
        at = torch.cat((uncertain, objects.others[numbers]), 1)
        inside = objects.inside_candidates[numbers].gather(1, chosen)
        labels = torch.cat((inside, objects.inside_others[numbers]), 1).to(logits.dtype)
    x = sample_points(maps, at)[:, 0]
    entropy = F.binary_cross_entropy_with_logits(x, labels, reduction="none").mean(1)
    return torch.stack((entropy.sum(), dice_loss(x, labels).sum()))
