"""Output of heads whose boxes are distributions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.queries.denoising import DenoisingQueries
from boxwright.queries.distributions import DistributionLayers
from boxwright.queries.encoder_queries import DecoderStart
from boxwright.queries.mask_branch import MaskFactors
from boxwright.queries.taught_queries import Taught
from boxwright.queries.union import Assignment


class DistributionGroups(NamedTuple):
    """Predictions of the queries of further groups, each as an image of the batch: all images group by group.

    ``selected`` are logits and boxes of the encoder's tokens.
    """

    layers: DistributionLayers
    selected: tuple[Float[Tensor, "n q k"], Float[Tensor, "n q 4"]]


class DistributionOutput(NamedTuple):
    """Predictions. Boxes are center boxes relative to the image inside its padding.

    ``logits``, ``boxes_cxcywh_norm`` and ``side_logits`` (of the bins of x1, y1, x2, y2) are those of the decoder
    layers: of every layer with targets, of the last one without. ``initial_*`` are the first layer's, which the sides
    move from. ``selected_*`` are the encoder's, which the decoder starts from, and ``selected_tokens`` the indices of
    its tokens, the best first. ``noised`` are predictions from the denoising queries, and ``denoising`` these queries;
    None without targets or denoising. ``others`` are predictions of further groups of queries, in training.
    ``assignment`` is that of the head's ``assign``. ``masks`` of all groups and ``noised_masks`` are those of the
    decoder layers, None where the head has none. ``taught`` is what auxiliary heads and a teacher of
    features train, in training.
    """

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]
    valid_sizes: Float[Tensor, "#b 2"]
    side_logits: Float[Tensor, "l b q 4 n"]
    initial_logits: Float[Tensor, "b q k"]
    initial_boxes_cxcywh_norm: Float[Tensor, "b q 4"]
    selected_logits: Float[Tensor, "b q k"]
    selected_boxes_cxcywh_norm: Float[Tensor, "b q 4"]
    selected_tokens: Int[Tensor, "b q"] | None = None
    noised: DistributionLayers | None = None
    denoising: DenoisingQueries | None = None
    others: DistributionGroups | None = None
    assignment: Assignment | None = None
    masks: MaskFactors | None = None
    noised_masks: MaskFactors | None = None
    taught: Taught = Taught()

    @classmethod
    def of(
        cls,
        predictions: DistributionLayers,
        start: DecoderStart,
        noised_masks: MaskFactors | None = None,
        masks: MaskFactors | None = None,
    ) -> DistributionOutput:
        """Make the output of predictions from all queries: noised ones first, then those of each group."""
        selection, others = start.selection, None
        noised, layers = predictions.split(start.num_noised)
        if start.num_groups > 1:
            layers, further = layers.split(selection.logits.shape[1])
            others = DistributionGroups(further.fold(start.num_groups - 1), start.other_selections)
        return cls(
            *layers[:2],
            start.valid_sizes,
            *layers[2:],
            selection.logits,
            selection.boxes_cxcywh_norm,
            selection.tokens,
            None if start.denoising is None else noised,
            start.denoising,
            others,
            masks=masks,
            noised_masks=noised_masks,
        )

    @property
    def num_groups(self) -> int:
        """Number of groups of queries."""
        return 1 if self.others is None else 1 + self.others.layers.logits.shape[1] // self.logits.shape[1]

    @property
    def every_group(self) -> DistributionGroups:
        """The predictions of all groups, each as images of a batch."""
        initial = self.initial_logits, self.initial_boxes_cxcywh_norm
        layers = DistributionLayers(self.logits, self.boxes_cxcywh_norm, self.side_logits, *initial)
        selected = self.selected_logits, self.selected_boxes_cxcywh_norm
        if self.others is None:
            return DistributionGroups(layers, selected)
        logits, boxes = (torch.cat(pair) for pair in zip(selected, self.others.selected, strict=True))
        return DistributionGroups(layers.join(self.others.layers), (logits, boxes))
