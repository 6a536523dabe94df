"""Initial weights of the mask branch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from boxwright.regions.mask_branch import MaskBranch
from boxwright.regions.options import MaskNorm, MaskOptions, RoIOptions
from boxwright.regions.roi_extractor import RoISource


def branch(norm: MaskNorm, hidden_dim: int = 64) -> MaskBranch:
    torch.manual_seed(0)
    source = RoISource(16, [4, 8], RoIOptions(extractor="adaptive"))
    return MaskBranch(source, 3, MaskOptions(norm=norm, hidden_dim=hidden_dim, fully_connected=True))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_convolution_begins_with_the_same_spread(norm: MaskNorm) -> None:
    convs = {name: m for name, m in branch(norm).named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    assert len(convs) == 2 + 2 + 1 + 2 + 2
    assert sum(name.startswith("whole.") for name in convs) == 2
    for name, conv in convs.items():
        # Kaiming's fan out, as PyTorch counts it.
        fan_out = conv.weight.shape[0] * conv.weight[0, 0].numel()
        numbers = conv.weight.numel()
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=4 / (2 * numbers) ** 0.5), name
        assert abs(conv.weight.mean().item()) < 4 * (2 / fan_out / numbers) ** 0.5, name
        if conv.bias is not None:
            assert not conv.bias.any(), name
