"""Contrastive denoising: noised objects as extra queries that train the decoder without matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from boxwright.ops.image_draws import Purpose, image_generator
from boxwright.queries.matching import Matches, NormalizedTargets
from boxwright.queries.options import DenoisingOptions

DEFAULT_OPTIONS = DenoisingOptions()


class DenoisingQueries(NamedTuple):
    """Noised objects, in groups that do not attend to each other.

    ``labels`` are 0..C-1, or C for a query without object. ``boxes_cxcywh_norm`` are relative to the image inside its
    padding. ``matches`` pair the queries with the objects that they have to recover, for one layer. ``num_groups`` is
    the number of times that each object has to be recovered.
    """

    labels: Int[Tensor, "b q"]
    boxes_cxcywh_norm: Float[Tensor, "b q 4"]
    matches: Matches
    num_groups: int

    def block_attention(self, num_queries: int) -> Bool[Tensor, "n n"]:
        """Mask the attention of queries (rows) to others (columns), noised queries first.

        A noised query attends to its own group and to the matching queries; a matching query to no noised one.

        Args:
            num_queries: matching queries, which come after the noised ones.
        """
        noised = self.labels.shape[1]
        group = torch.arange(noised + num_queries, device=self.labels.device) // (noised // self.num_groups)
        group = group.clamp(max=self.num_groups)
        return (group[:, None] != group) & (group < self.num_groups)


class _Noise(NamedTuple):
    """Random numbers of queries: of the chance to get another label, that label, and direction and size of moves."""

    chance: Float[Tensor, "*b q"]
    label: Int[Tensor, "*b q"]
    direction: Int[Tensor, "*b q 4"]
    size: Float[Tensor, "*b q 4"]


def draw_denoising_queries(
    targets: Sequence[NormalizedTargets],
    num_classes: int,
    options: DenoisingOptions = DEFAULT_OPTIONS,
    *,
    seeds: Sequence[int | None] = (),
    most_objects: int = 0,
) -> DenoisingQueries:
    """Draw noised copies of every object: per group one to be recovered and one to be rejected.

    A corner moves by noise * box_noise * side / 2, with |noise| in [0, 1) for copies to be recovered and in [1, 2) for
    copies to be rejected, and is clipped to the image. A label is replaced, with probability ``label_noise`` / 2, by
    one drawn evenly.

    Args:
        targets: one per image. All may be without objects: one empty group is drawn then, so that every parameter
            stays part of the graph.
        num_classes: C.
        options: number of objects to recover, in the fullest image, from which the number of groups follows; noise.
        seeds: of the noise of each image, see ``Targets``; torch's global generator draws it where there is none.
        most_objects: of an image, where other parts of the optimizer step have one with more objects.

    Returns:
        per group and image: queries for the objects to recover, as many as the fullest image has, then as many for
        those to reject. In images with fewer objects some queries have none.

    Source: Zhang et al., DINO, ICLR 2023, section 3.3. Checked against transformers and lyuwenyu/RT-DETR 068dfde, with
    which it shares the order of random draws: equal seeds of the global generator give equal queries.
    """
    counts = [len(t.labels) for t in targets]
    device = targets[0].labels.device
    fullest = max(most_objects, *counts)
    most = max(1, fullest)
    num_groups = max(1, options.num_queries // most) if fullest else 1

    labels = torch.full((len(targets), most), num_classes, dtype=torch.int64, device=device)
    boxes = torch.zeros(len(targets), most, 4, device=device)
    for i, target in enumerate(targets):
        labels[i, : counts[i]] = target.labels
        boxes[i, : counts[i]] = target.boxes_cxcywh_norm
    labels, boxes = labels.repeat(1, 2 * num_groups), boxes.repeat(1, 2 * num_groups, 1)

    noise = _draw_noise(labels.shape, num_classes, seeds, device)
    replace = noise.chance < options.label_noise * 0.5
    noised_labels = torch.where(replace & (labels < num_classes), noise.label, labels)

    sign, size = noise.direction * 2.0 - 1.0, noise.size
    index = torch.arange(boxes.shape[1], device=device) % (2 * most)
    size = size + (index >= most).float()[:, None]  # the second half of each group is to be rejected
    corners = cxcywh_to_xyxy(boxes) + sign * size * boxes[..., 2:].repeat(1, 1, 2) * 0.5 * options.box_noise
    noised_boxes = xyxy_to_cxcywh(corners.clamp(0, 1))
    return DenoisingQueries(
        noised_labels,
        noised_boxes.abs() if options.mirrored else noised_boxes,
        _pair(counts, most, num_groups, device),
        num_groups,
    )


def _draw_noise(shape: torch.Size, num_classes: int, seeds: Sequence[int | None], device: torch.device) -> _Noise:
    if all(seed is None for seed in seeds):
        return _draw_with(None, shape, num_classes, device)
    generators = [None if seed is None else image_generator(seed, Purpose.DENOISING, device) for seed in seeds]
    images = [_draw_with(generator, shape[1:], num_classes, device) for generator in generators]
    return _Noise(*(torch.stack(numbers) for numbers in zip(*images, strict=True)))


def _draw_with(generator: torch.Generator | None, shape: torch.Size, num_classes: int, device: torch.device) -> _Noise:
    corners = (*shape, 4)
    return _Noise(
        torch.rand(shape, generator=generator, device=device),
        torch.randint(0, num_classes, shape, generator=generator, device=device),
        torch.randint(0, 2, corners, generator=generator, device=device),
        torch.rand(corners, generator=generator, device=device),
    )


def _pair(counts: Sequence[int], most: int, num_groups: int, device: torch.device) -> Matches:
    images, queries, objects = [], [], []
    first = 0
    starts = torch.arange(num_groups) * 2 * most
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
