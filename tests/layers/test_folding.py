"""Folding over a whole model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm, FrozenBatchNorm2d
from boxwright.layers.folding import fold_norms, unfolded_norms
from random_weights import calibrate, shake


class Pair(nn.Module):
    """A convolution and a norm whose order only ``forward`` knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.norm(x))
        return y


def model() -> nn.Sequential:
    """Norms in every place: behind a convolution, behind an activation, first of all, in modules of their own."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    frozen = nn.Sequential(nn.Conv2d(4, 4, 1), FrozenBatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
    whole = nn.Sequential(plain, frozen, ConvNorm(4, 4, 3, groups=4), Pair())
    shake(whole)
    calibrate(whole, torch.randn(8, 3, 12, 12))
    return whole.eval()


def test_norms_right_behind_a_convolution_are_folded_and_the_others_can_be_listed() -> None:
    whole, x = model(), torch.randn(2, 3, 9, 11)
    assert unfolded_norms(whole) == ["0.1", "0.3", "1.1", "2.norm", "3.norm"]
    expected = whole(x)
    for _ in range(2):
        fold_norms(whole)
        assert unfolded_norms(whole) == ["0.3", "3.norm"]
        torch.testing.assert_close(whole(x), expected, rtol=0, atol=1e-5)
    assert isinstance(whole[1][3], nn.GroupNorm)


def test_a_norm_without_statistics_stays() -> None:
    sequence = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    fold_norms(sequence)
    assert unfolded_norms(sequence) == ["1"]


def test_a_convolution_of_two_norms_is_folded_once() -> None:
    sequence = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    shake(sequence)
    calibrate(sequence, torch.randn(8, 3, 4, 4))
    x = torch.randn(2, 3, 4, 4)
    expected = sequence.eval()(x)
    fold_norms(sequence)
    assert unfolded_norms(sequence) == ["2"]
    torch.testing.assert_close(sequence(x), expected, rtol=0, atol=1e-5)
