"""FPN, against torchvision's with the same weights."""

from __future__ import annotations

import pytest
import torch
import torchvision

from boxwright.necks.fpn import FPN
from boxwright.structures import Level, Spec

SPEC: Spec = {"c2": Level(6, 4), "c3": Level(8, 8), "c4": Level(10, 16)}


@pytest.mark.parametrize("sizes", [[(16, 16), (8, 8), (4, 4)], [(13, 9), (7, 5), (4, 3)]], ids=["even", "odd"])
def test_equals_torchvisions(sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    ours = FPN(SPEC, out_channels=5)
    theirs = torchvision.ops.FeaturePyramidNetwork([6, 8, 10], 5)
    for i, name in enumerate(SPEC):
        theirs.inner_blocks[i][0].load_state_dict(ours.lateral[name].state_dict())
        theirs.layer_blocks[i][0].load_state_dict(ours.smooth[name].state_dict())
    features = {
        name: torch.randn(2, level.channels, *size) for (name, level), size in zip(SPEC.items(), sizes, strict=True)
    }
    expected, found = theirs(features), ours(features)
    assert list(found) == ["c2", "c3", "c4"]
    for name in SPEC:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)


def test_published_parameter_count() -> None:
    spec = {f"c{i}": Level(channels, 2**i) for i, channels in zip(range(2, 6), (256, 512, 1024, 2048), strict=True)}
    assert sum(p.numel() for p in FPN(spec).parameters()) == 3_344_384


def test_width_is_positive() -> None:
    with pytest.raises(ValueError, match="out_channels is at least 1, not 0"):
        FPN(SPEC, out_channels=0)
