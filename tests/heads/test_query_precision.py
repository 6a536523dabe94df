"""Boxes of query heads whose weights have half precision."""

from __future__ import annotations

from typing import Any

import deformable_detr_head
import pytest
import rtdetr_head
import torch
from deformable_detr_head import VARIANTS
from torch import nn

from boxwright.heads.detr import DETR
from boxwright.queries import TransformerDecoderOptions
from boxwright.structures import Features


def detr_head() -> DETR:
    torch.manual_seed(0)
    decoder = TransformerDecoderOptions(num_heads=2, feedforward_dim=24, num_layers=2)
    return DETR(rtdetr_head.SPEC, 4, hidden_dim=16, num_queries=12, decoder=decoder).eval()


HEADS: dict[str, tuple[nn.Module, Features]] = {
    "detr": (detr_head(), rtdetr_head.maps(2, 64, 96)),
    "rtdetr": (rtdetr_head.small_head(), rtdetr_head.maps(2, 64, 96)),
    **{
        name: (deformable_detr_head.small_head(**options), deformable_detr_head.maps())
        for name, options in VARIANTS.items()
    },
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_boxes_are_at_least_float32(name: str, dtype: torch.dtype, padded: bool) -> None:
    head: Any
    head, features = HEADS[name]
    head.to(dtype)
    mask = deformable_detr_head.padding_mask() if padded else None
    with torch.no_grad():
        output = head({level: x.to(dtype) for level, x in features.items()}, mask)
    head.float()
    assert output.logits.dtype == dtype
    decoded, boxes = head.decode(output), output.boxes_cxcywh_norm
    assert decoded.scores.dtype == decoded.boxes.dtype == boxes.dtype == torch.float32
    # Not merely stored in float32.
    assert (boxes.to(dtype).float() == boxes).float().mean() < 0.3
