"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from boxwright.training.sharding import load_whole_weights, local_shard


class MovingAverage:
    """A second model whose floating-point weights and statistics follow those of the first.

    average = decay * average + (1 - decay) * model, once per optimizer step; counters are copied.

    Args:
        model: what is followed; its copy is ``self.model``, in evaluation mode. Where the one is sharded, the other has
            to be as well.

    Source: Polyak and Juditsky, 1992. Checked against ``ModelEMA`` of lyuwenyu/RT-DETR 068dfde.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float) -> None:
        """Move toward ``model``."""
        averages: list[Tensor] = []
        values: list[Tensor] = []
        current = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                averages.append(local_shard(average))
                values.append(local_shard(current[name]))
            else:
                average.copy_(current[name])
        torch._foreach_lerp_(averages, values, 1 - decay)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from saved weights."""
        load_whole_weights(self.model, weights)
