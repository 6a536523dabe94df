"""Parts of explanations that dense and two-stage heads share: cells of levels, their anchors, neighbors in NMS."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.layers.predictions import InputProjection
from boxwright.mechanism import AnchorOrigin, Neighbors
from boxwright.mechanism_levels import LevelCell
from boxwright.ops.boxes import iou
from boxwright.recorded import Recorded


class LevelCells(NamedTuple):
    """Names, strides and shapes (h, w) of levels, fine to coarse."""

    names: tuple[str, ...]
    strides: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, projection: InputProjection, recorded: Recorded) -> LevelCells:
        """Read them off the first recorded call of a projection of levels."""
        maps = cast(list[Tensor], recorded.calls[projection][0].output)
        shapes = tuple((int(x.shape[-2]), int(x.shape[-1])) for x in maps)
        return cls(tuple(projection.levels), tuple(projection.strides), shapes)

    def anchor(self, index: int, num_anchors: int, box: Float[Tensor, " 4"]) -> AnchorOrigin:
        """Return the anchor of an index among all, cell by cell.

        Args:
            index: from 0.
            num_anchors: of a cell.
            box: of the anchor, in pixels of the network input.
        """
        cell = LevelCell.of_index(self.names, self.strides, self.shapes, index // num_anchors)
        return AnchorOrigin(cell, index % num_anchors, num_anchors, box.float().cpu())


def list_neighbors(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n"],
    kept: int,
    indices: Int[Tensor, " m"] | None = None,
    factors: Float[Tensor, " m"] | None = None,
) -> Neighbors:
    """List candidates of the first image as neighbors of one that was kept.

    Args:
        boxes: corner boxes of all candidates.
        scores: of all candidates, before suppression.
        kept: index of the one that was kept.
        indices: of its neighbors; none where None.
        factors: that their scores were multiplied by; 0 where None.
    """
    if indices is None:
        indices = torch.zeros(0, dtype=torch.int64)
    own, before = boxes[0, indices].float().cpu(), scores[0, indices].float().cpu()
    overlaps = iou(own, boxes[0, kept].float().cpu())
    return Neighbors(own, before, overlaps, torch.zeros_like(before) if factors is None else factors.float().cpu())
