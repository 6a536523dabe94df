"""A detector with masks that trains in a tenth of a second: RT-DETR, whose masks are the ellipses in its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from boxwright.detections import Detections
from boxwright.heads.rtdetr import RTDETR
from boxwright.ops.masks import encode_mask
from boxwright.structures import ImageSize, LossTotals, Targets

__all__ = ["MaskedRTDETR"]


class MaskedRTDETR(RTDETR):
    """Has the options of RT-DETR, and wants masks to be trained on."""

    needs_masks = True

    def loss(self, output: Any, targets: Sequence[Targets], totals: LossTotals | None = None) -> dict[str, Tensor]:
        """As RT-DETR's; looks whether every object has a mask."""
        for target in targets:
            assert target.masks is not None
            assert len(target.masks) == len(target.labels)
        return super().loss(output, targets, totals)

    def postprocess(self, output: Any, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """As RT-DETR's, and ellipses."""
        found = super().postprocess(output, image_sizes)
        return [
            one._replace(masks=tuple(encode_mask(ellipse(box, size.height, size.width)) for box in one.boxes))
            for one, size in zip(found, image_sizes, strict=True)
        ]


def ellipse(box: Tensor, height: int, width: int) -> Tensor:
    """The pixels of the ellipse in a corner box."""
    x1, y1, x2, y2 = box.tolist()
    rows = (torch.arange(height) + 0.5 - (y1 + y2) / 2) / max((y2 - y1) / 2, 1e-6)
    columns = (torch.arange(width) + 0.5 - (x1 + x2) / 2) / max((x2 - x1) / 2, 1e-6)
    return rows[:, None] ** 2 + columns**2 <= 1
