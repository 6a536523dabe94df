"""Timm: norms that are folded into convolutions, and those that stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_timm import build, make_images, randomize
from torch import Tensor, nn

from boxwright.layers.conv import FrozenBatchNorm2d
from boxwright.layers.folding import fold_norms


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize(
    ("model", "left"), [("test_efficientnet", 0), ("test_resnet", 0), ("test_byobnet", None), ("ghostnet_050", None)]
)
def test_folded_norms_change_no_output(model: str, left: int | None, norm: Any) -> None:
    backbone = randomize(build(model, norm=norm)).eval()
    with torch.no_grad():
        expected = backbone(make_images(100, 75))
        fold_norms(backbone)
        actual = backbone(make_images(100, 75))
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    assert left is None or len(norms) == left
    for name, level in actual.items():
        torch.testing.assert_close(level, expected[name], rtol=1e-9, atol=1e-9)


def test_a_norm_is_not_folded_into_a_convolution_that_something_else_uses_too() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
            self.conv2, self.bn2 = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> list[Tensor]:
            x = self.conv1(x)
            return [x + self.bn2(self.conv2(self.bn1(x)))] * 3

    backbone = build("test_efficientnet").eval()
    backbone.body = Shortcut()
    backbone.double().fold_norms()
    assert isinstance(backbone.body.bn1, nn.BatchNorm2d)
    assert isinstance(backbone.body.bn2, nn.Identity)


def test_a_norm_is_folded_into_a_convolution_with_bias() -> None:
    class Biased(nn.Sequential):
        def forward(self, x: Tensor) -> list[Tensor]:
            x = super().forward(x)
            return [x, x, x]

    backbone = build("test_efficientnet")
    backbone.body = Biased(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    randomize(backbone).eval()
    with torch.no_grad():
        expected = backbone(make_images(9, 7))
        backbone.fold_norms()
        actual = backbone(make_images(9, 7))
    assert isinstance(backbone.body[1], nn.Identity)
    for name, level in actual.items():
        torch.testing.assert_close(level, expected[name], rtol=0, atol=1e-12)
