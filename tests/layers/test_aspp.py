"""ASPP: its views, its parameters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from boxwright.layers.aspp import ASPP


@pytest.mark.parametrize("size", [(15, 13), (2, 3), (1, 1)])
def test_views_lie_side_by_side(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    aspp, x = ASPP(5, 2), torch.randn(2, 5, *size)
    for parameter in aspp.parameters():
        torch.nn.init.normal_(parameter)
    point, near, far = aspp.views
    views = [
        F.conv2d(x, point.weight, point.bias),
        F.conv2d(x, near.weight, near.bias, padding=3, dilation=3),
        F.conv2d(x, far.weight, far.bias, padding=6, dilation=6),
        aspp.whole(F.adaptive_avg_pool2d(x, 1)).expand(2, 2, *size),
    ]
    out = aspp(x)
    assert out.shape == (2, aspp.out_channels, *size)
    torch.testing.assert_close(out, torch.cat(views, dim=1).relu())


def test_published_parameter_count() -> None:
    aspp = ASPP(256, 64)
    assert aspp.out_channels == 256
    assert sum(p.numel() for p in aspp.parameters()) == 327_936
