"""Selection of Winograd's form for a convolution over levels, and its agreement with the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from boxwright.layers import conv_over_levels as module
from boxwright.layers.conv_over_levels import conv_over_levels, winograd_conv3x3


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of maps that Winograd's form was given."""
    counts: list[int] = []

    def counted(maps: list[Tensor], *weights: Any) -> list[Tensor]:
        counts.append(len(maps))
        return winograd_conv3x3(maps, *weights)

    monkeypatch.setattr(module, "winograd_conv3x3", counted)
    return counts


def maps(channels: int = 128, *, side: int = 22, batch: int = 1) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, channels, side, side), torch.randn(batch, channels, 6, 5)]


def conv(in_channels: int = 128, out_channels: int = 128, kernel_size: int = 3, **options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(in_channels, out_channels, kernel_size, **({"padding": 1} | options))


def test_training_on_a_cpu_takes_winograds_form(calls: list[int]) -> None:
    layer, levels = conv(), maps()
    results, expected = conv_over_levels(layer, levels), [layer(x) for x in levels]
    assert calls == [2]
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "levels"),
    [
        (conv(64), maps(64)),
        (conv(out_channels=127), maps()),
        (conv(), maps(side=21)),
        (conv(), maps(side=15, batch=8)),
        (conv(kernel_size=1, padding=0), maps()),
        (conv(stride=2), maps()),
        (conv(padding=0), maps()),
        (conv(groups=2), maps()),
        (conv(dilation=2, padding=2), maps()),
        (conv(padding_mode="reflect"), maps()),
        (conv().double(), [x.double() for x in maps()]),
        (conv().requires_grad_(False), maps()),
    ],
    ids=[
        *("narrow", "few results", "small", "small in a batch", "1 x 1", "stride", "no padding", "groups", "dilation"),
        *("reflect", "float64", "frozen"),
    ],
)
def test_everything_else_is_the_module_itself(layer: nn.Conv2d, levels: list[Tensor], calls: list[int]) -> None:
    results = conv_over_levels(layer, levels)
    assert not calls
    for ours, theirs in zip(results, [layer(x) for x in levels], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_prediction_and_mixed_precision_are_the_module_itself(calls: list[int]) -> None:
    with torch.no_grad():
        conv_over_levels(conv(), maps())
    with torch.autocast("cpu", torch.bfloat16):
        assert conv_over_levels(conv(), maps())[0].dtype == torch.bfloat16
    assert not calls


def test_export_sees_convolutions(calls: list[int]) -> None:
    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(self, *levels: Tensor) -> list[Tensor]:
            return conv_over_levels(self.conv, levels)

    levels = tuple(maps())
    program = torch.export.export(Levels(), levels)
    assert not calls
    assert sum(node.target == torch.ops.aten.conv2d.default for node in program.graph.nodes) == 2
