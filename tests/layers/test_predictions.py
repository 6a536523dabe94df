"""A layer in the precision of its weights, whatever surrounds it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from boxwright.layers.predictions import run_in_full_precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_autocast_and_the_inputs_type_change_nothing(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype)
    x = torch.randn(5, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours = run_in_full_precision(layer, x)
    assert ours.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.testing.assert_close(ours, layer(x.to(dtype)).to(ours.dtype), rtol=0, atol=0)
