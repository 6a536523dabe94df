"""A detector with masks that trains in a tenth of a second: RT-DETR with the ellipses in its boxes as masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from boxwright.heads.rtdetr import RTDETR
from boxwright.structures import Decoded, LossTotals, Targets

__all__ = ["MaskedRTDETR"]


class MaskedRTDETR(RTDETR):
    """RT-DETR that is trained on masks, of which it takes no notice."""

    mask_region = "box"

    def loss(self, output: Any, targets: Sequence[Targets], totals: LossTotals | None = None) -> dict[str, Tensor]:
        """Compute RT-DETR's losses; check that every object has a mask."""
        for target in targets:
            assert target.masks is not None
            assert len(target.masks) == len(target.labels)
        return super().loss(output, targets, totals)

    def decode(self, output: Any) -> Decoded:
        """Decode as RT-DETR, with ellipses for masks."""
        decoded = super().decode(output)
        masks = round_mask(28).to(decoded.scores).expand(*decoded.scores.shape, -1, -1)
        return decoded._replace(masks=masks, mask_boxes=decoded.boxes)


def round_mask(cells: int) -> Tensor:
    """Draw the ellipse in a box of so many cells a side, as probabilities that fall off toward its rim."""
    middle = (torch.arange(cells) + 0.5) / cells * 2 - 1
    return (4 * (1 - middle[:, None] ** 2 - middle**2)).sigmoid()


def ellipse(box: Tensor, height: int, width: int) -> Tensor:
    """Draw the pixels of the ellipse in a corner box."""
    x1, y1, x2, y2 = box.tolist()
    rows = (torch.arange(height) + 0.5 - (y1 + y2) / 2) / max((y2 - y1) / 2, 1e-6)
    columns = (torch.arange(width) + 0.5 - (x1 + x2) / 2) / max((x2 - x1) / 2, 1e-6)
    return rows[:, None] ** 2 + columns**2 <= 1
