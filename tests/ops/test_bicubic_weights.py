"""Weights that resize an axis."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from boxwright.ops.position_tables import bicubic_weights


@pytest.mark.parametrize(("length", "cells"), [(10, 10), (10, 7), (10, 3), (10, 23), (37, 24), (4, 1)])
def test_bicubic_weights_are_those_of_torch(length: int, cells: int) -> None:
    table = torch.randn(1, 5, length, length, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(table, size=(cells, length + 1), mode="bicubic", antialias=True)
    device = torch.device("cpu")
    down, across = bicubic_weights(length, cells, device), bicubic_weights(length, length + 1, device)
    torch.testing.assert_close(down @ table @ across.t(), expected, rtol=0, atol=1e-5)
