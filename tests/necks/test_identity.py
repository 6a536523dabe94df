"""No neck."""

from __future__ import annotations

import torch

from boxwright.necks.identity import Identity
from boxwright.structures import Level


def test_hands_on_the_very_maps() -> None:
    neck = Identity({"c3": Level(2, 8, auxiliary=True)})
    features = {"c3": torch.randn(1, 2, 4, 4)}
    assert neck(features)["c3"] is features["c3"]
    assert neck.out_spec == {"c3": Level(2, 8, auxiliary=True)}
