"""Output of Deformable DETR's head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.queries.groups import fold_groups
from boxwright.queries.mask_branch import MaskFactors
from boxwright.queries.selection import Selection
from boxwright.queries.taught_queries import Taught


class DeformableGroups(NamedTuple):
    """Predictions of further groups of queries, each as an image of the batch: all images group by group."""

    logits: Float[Tensor, "l n q k"]
    boxes_cxcywh_norm: Float[Tensor, "l n q 4"]
    encoder_logits: Float[Tensor, "n t k"] | None
    encoder_boxes_cxcywh_norm: Float[Tensor, "n t 4"] | None


class DeformableDETROutput(NamedTuple):
    """Predictions. Boxes are center boxes relative to the image inside its padding, in [0, 1].

    ``logits`` and ``boxes_cxcywh_norm`` are those of the decoder layers: of every layer with targets and auxiliary
    losses, else of the last one. ``valid_sizes`` are (height, width) of the images inside their padding. ``selected_*``
    are the encoder's best, which the decoder starts from, ``selected_tokens`` the indices of their tokens, and
    ``encoder_*``, with targets, the predictions of all tokens; None without two stages. ``others`` are predictions of
    further groups of queries, in training. ``masks`` of all groups are those of the decoder layers, None where the head
    has none. ``taught`` is what auxiliary heads and a teacher of features train, in training.
    """

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]
    valid_sizes: Float[Tensor, "#b 2"]
    selected_logits: Float[Tensor, "b q k"] | None = None
    selected_boxes_cxcywh_norm: Float[Tensor, "b q 4"] | None = None
    encoder_logits: Float[Tensor, "b t k"] | None = None
    encoder_boxes_cxcywh_norm: Float[Tensor, "b t 4"] | None = None
    selected_tokens: Int[Tensor, "b q"] | None = None
    others: DeformableGroups | None = None
    masks: MaskFactors | None = None
    taught: Taught = Taught()

    def every_group(self) -> DeformableGroups:
        """Put the predictions of all groups together, each as images of a batch."""
        encoded = self.encoder_logits, self.encoder_boxes_cxcywh_norm
        if self.others is None:
            return DeformableGroups(self.logits, self.boxes_cxcywh_norm, *encoded)
        logits, boxes, *others = self.others
        layers = torch.cat((self.logits, logits), 1), torch.cat((self.boxes_cxcywh_norm, boxes), 1)
        return DeformableGroups(*layers, _append(encoded[0], others[0]), _append(encoded[1], others[1]))


def list_others(
    logits: Float[Tensor, "l b gq k"], boxes: Float[Tensor, "l b gq 4"], selections: Sequence[Selection | None]
) -> DeformableGroups:
    """List the predictions of all groups but the first."""
    logits, boxes = (fold_groups(x, len(selections), axis=1)[:, x.shape[1] :] for x in (logits, boxes))
    selected = [one for one in selections[1:] if one is not None]
    if not selected:
        return DeformableGroups(logits, boxes, None, None)
    every_logits = [one.every_logits for one in selected if one.every_logits is not None]
    every_boxes = [one.every_boxes_cxcywh_norm for one in selected if one.every_boxes_cxcywh_norm is not None]
    return DeformableGroups(logits, boxes, torch.cat(every_logits), torch.cat(every_boxes))


def _append(first: Tensor | None, others: Tensor | None) -> Tensor | None:
    return None if first is None or others is None else torch.cat((first, others))
