"""Contrastive denoising: noised objects as extra queries that train the decoder without matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from boxwright.queries.matching import Matches, NormalizedTargets


class DenoisingQueries(NamedTuple):
    """Noised objects, in groups that do not see each other.

    ``labels`` are 0..C-1, or C for a place that holds no object. ``boxes_cxcywh_norm`` are relative to the image's
    content. ``matches`` says which queries have to recover which object, for one layer. ``num_groups`` is how many
    times each object has to be recovered.
    """

    labels: Int[Tensor, "b q"]
    boxes_cxcywh_norm: Float[Tensor, "b q 4"]
    matches: Matches
    num_groups: int

    def blocked(self, num_queries: int) -> Bool[Tensor, "n n"]:
        """Who must not see whom, noised queries first: groups see themselves and, one way, the matching queries.

        Args:
            num_queries: matching queries, which stand after the noised ones and see only each other.
        """
        noised = self.labels.shape[1]
        group = torch.arange(noised + num_queries, device=self.labels.device) // (noised // self.num_groups)
        group = group.clamp(max=self.num_groups)
        # A noised query sees its own group and the matching queries; a matching query sees no noised one.
        return (group[:, None] != group) & (group < self.num_groups)


def denoising_queries(
    targets: Sequence[NormalizedTargets],
    num_classes: int,
    *,
    num_denoising: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
) -> DenoisingQueries:
    """Draw noised copies of every object: per group one to be recovered and one to be rejected.

    A corner moves by noise * box_noise * side / 2, with |noise| in [0, 1) for those to be recovered and in [1, 2) for
    those to be rejected, and is clipped to the image. A label is replaced, with probability ``label_noise`` / 2, by
    one drawn evenly.

    Args:
        targets: one per image. All may be without objects: one empty group is drawn then, so that every parameter
            stays part of the graph.
        num_classes: C.
        num_denoising: objects to recover, over all groups, in the fullest image; the number of groups follows.
        label_noise: in [0, 2].
        box_noise: at least 0.

    Returns:
        per group and image: places for the objects to recover, as many as the fullest image has, then as many for
        those to reject. Images with fewer objects leave places empty.

    Source: Zhang et al., DINO, ICLR 2023, section 3.3. Checked against transformers and lyuwenyu/RT-DETR 068dfde, with
    which it shares the order of random draws: equal seeds give equal queries.
    """
    counts = [len(t.labels) for t in targets]
    device = targets[0].labels.device
    places = max(1, *counts) if counts else 1
    num_groups = max(1, num_denoising // places) if any(counts) else 1

    labels = torch.full((len(targets), places), num_classes, dtype=torch.int64, device=device)
    boxes = torch.zeros(len(targets), places, 4, device=device)
    for i, target in enumerate(targets):
        labels[i, : counts[i]] = target.labels
        boxes[i, : counts[i]] = target.boxes_cxcywh_norm
    labels, boxes = labels.repeat(1, 2 * num_groups), boxes.repeat(1, 2 * num_groups, 1)

    replace = torch.rand(labels.shape, device=device) < label_noise * 0.5
    drawn = torch.randint(0, num_classes, labels.shape, device=device)
    noised_labels = torch.where(replace & (labels < num_classes), drawn, labels)

    sign = torch.randint(0, 2, boxes.shape, device=device) * 2.0 - 1.0
    size = torch.rand(boxes.shape, device=device)
    place = torch.arange(boxes.shape[1], device=device) % (2 * places)
    size = size + (place >= places).float()[:, None]  # the second half of each group is to be rejected
    corners = cxcywh_to_xyxy(boxes) + sign * size * boxes[..., 2:].repeat(1, 1, 2) * 0.5 * box_noise
    return DenoisingQueries(
        noised_labels,
        xyxy_to_cxcywh(corners.clamp(0, 1)),
        _matches(counts, places, num_groups, device),
        num_groups,
    )


def _matches(counts: Sequence[int], places: int, num_groups: int, device: torch.device) -> Matches:
    images, queries, objects = [], [], []
    first = 0
    starts = torch.arange(num_groups) * 2 * places
    for image, count in enumerate(counts):
        one = torch.arange(count)
        queries.append((starts[:, None] + one).flatten())
        objects.append((one + first).repeat(num_groups))
        images.append(torch.full((count * num_groups,), image))
        first += count
    image_index = torch.cat(images).to(device)
    return Matches(
        torch.zeros_like(image_index), image_index, torch.cat(queries).to(device), torch.cat(objects).to(device)
    )
