"""Predictions of dense heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class DenseOutput(NamedTuple):
    """Predictions from the anchors of every cell, level by level, fine to coarse.

    ``offsets`` are what the head's boxes are made of, with ``anchors``, which are corner boxes in pixels of the
    network input. ``centerness`` is a logit, or None where the head has none. ``valid_sizes`` are (height, width) of
    the images inside their padding, in pixels of the network input.
    """

    logits: tuple[Float[Tensor, "b _n k"], ...]
    offsets: tuple[Float[Tensor, "b _n 4"], ...]
    anchors: tuple[Float[Tensor, "_n 4"], ...]
    valid_sizes: Float[Tensor, "#b 2"]
    centerness: tuple[Float[Tensor, "b _n 1"], ...] | None = None

    def join_levels(self) -> DenseOutput:
        """Join all levels to one."""
        return DenseOutput(
            (torch.cat(self.logits, 1),),
            (torch.cat(self.offsets, 1),),
            (torch.cat(self.anchors),),
            self.valid_sizes,
            None if self.centerness is None else (torch.cat(self.centerness, 1),),
        )

    def by_level(
        self,
    ) -> Iterator[
        tuple[Float[Tensor, "b n k"], Float[Tensor, "b n 4"], Float[Tensor, "n 4"], Float[Tensor, "b n 1"] | None]
    ]:
        """Iterate over logits, offsets, anchors and centerness of each level."""
        centerness = self.centerness or (None,) * len(self.logits)
        yield from zip(self.logits, self.offsets, self.anchors, centerness, strict=True)
