"""Losses of the masks of matched queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.losses.dice import dice_loss
from boxwright.queries.mask_branch import MaskFactors
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
        targets: one per image.
        count: divisor.

    Source: ``loss_masks`` of roboflow/rf-detr 35ac6ab. Checked against it, and against Intellindust-AI-Lab/EdgeCrafter
    706d037, whose masks fall to a logit of 0 at the border of the image. Differs in drawing points for an object, where
    theirs draw for each match.
    """
    grouped, first = _group(matches), 0
    losses = []
    for image, target in enumerate(targets):
        for layer in range(len(masks.maps)):
            # Without a match too: every parameter stays part of the graph.
            rows = grouped.get((image, layer), [])
            index = torch.tensor(rows, dtype=torch.int64).to(matches.query.device)
            logits = masks.compute(layer, image, masks.cells(layer, image), matches.query[index])
            losses.append(_compare(logits, matches.object[index] - first, target, masks.size))
        first += len(target.masks)
    entropy, dice = torch.stack(losses).unflatten(0, (len(targets), -1)).sum(0).unbind(-1)
    return entropy / count, dice / count


def _group(matches: Matches) -> dict[tuple[int, int], list[int]]:
    """List the matches of each image and layer."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, pair in enumerate(zip(matches.image.tolist(), matches.layer.tolist(), strict=True)):
        groups[pair].append(row)
    return groups


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
