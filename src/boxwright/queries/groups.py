"""Groups of queries: in training, further ones beside those that predict, which do not attend to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import Activation
from boxwright.layers.mlp import MLP
from boxwright.queries.decoder import reset_predictors


class EncoderHeads(NamedTuple):
    """Modules that select the queries of a group: they map tokens, score their classes and move their anchors."""

    output: nn.Module
    classes: nn.Linear
    boxes: nn.Module


class GroupEncoder(nn.Module):
    """Selecting heads of a further group of queries, which run in training only.

    Args:
        hidden_dim: width of the tokens.
        num_classes: C.
        activation: of the box head.
        mapped: tokens go through a layer before.

    Source: Chen et al., Group DETR, ICCV 2023; with heads for each group, LW-DETR, 2024, as in roboflow/rf-detr
    35ac6ab.
    """

    def __init__(self, hidden_dim: int, num_classes: int, activation: Activation, *, mapped: bool = True) -> None:
        super().__init__()
        layers = (nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim)) if mapped else ()
        self.output = nn.Sequential(*layers)
        self.classes = nn.Linear(hidden_dim, num_classes)
        self.boxes = MLP(hidden_dim, hidden_dim, 4, 3, activation=activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the heads of the first group: Xavier for the map, class and box heads as published."""
        for layer in self.output:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        reset_predictors((self.classes,), (self.boxes,))

    def heads(self) -> EncoderHeads:
        """Return the heads."""
        return EncoderHeads(self.output, self.classes, self.boxes)


class GroupPredictions(NamedTuple):
    """Predictions of the queries of further groups, each as an image of the batch: all images group by group.

    ``logits`` and ``boxes_cxcywh_norm`` are the decoder layers', ``selected_*`` the encoder's.
    """

    logits: Float[Tensor, "l n q k"]
    boxes_cxcywh_norm: Float[Tensor, "l n q 4"]
    selected_logits: Float[Tensor, "n q k"]
    selected_boxes_cxcywh_norm: Float[Tensor, "n q 4"]

    def list_layers(self) -> tuple[Float[Tensor, "_l n q k"], Float[Tensor, "_l n q 4"]]:
        """List the logits and boxes of the decoder layers, and then the encoder's."""
        logits = torch.cat((self.logits, self.selected_logits[None]))
        return logits, torch.cat((self.boxes_cxcywh_norm, self.selected_boxes_cxcywh_norm[None]))


def join_queries(parts: Sequence[Float[Tensor, "b _q d"]]) -> Float[Tensor, "b _n d"]:
    """Put queries side by side; of one part nothing is copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def fold_groups(x: Float[Tensor, ...], num_groups: int, axis: int) -> Float[Tensor, ...]:
    """Make each group of queries an image of the batch: all images group by group.

    Args:
        x: of the queries of all groups, those of a group side by side.
        num_groups: groups of as many queries each.
        axis: of the batch; that of the queries follows.
    """
    grouped: Tensor = x.unflatten(axis + 1, (num_groups, -1)).transpose(axis, axis + 1)
    return grouped.flatten(axis, axis + 1)
