"""PANet's mask branch beside its authors': their numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from formula import set_weights, uniform

from boxwright.regions.mask_branch import MaskBranch
from boxwright.regions.options import MaskOptions, RoIOptions
from boxwright.regions.roi_extractor import RoISource

WITHOUT_BIAS = ("first", "middle", "last", "whole.0", "whole.1")


def test_adaptive_features_and_fully_connected_fusion() -> None:
    source = RoISource(6, [4, 8, 16], RoIOptions(extractor="adaptive"))
    ours = MaskBranch(source, 3, MaskOptions(hidden_dim=6, fully_connected=True))
    set_weights(ours)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.startswith(WITHOUT_BIAS) and name.endswith("bias"):
                parameter.zero_()
    logits = ours.predict([uniform(f"region {i}", 3, 6, 14, 14) for i in range(3)], torch.tensor([2, 0, 1]))
    with np.load(Path(__file__).parent / "data" / "panet_masks.npz") as numbers:
        expected = numbers["logits"]
    assert np.abs(expected).max() > 1
    # Stored in float32.
    assert np.abs(logits.detach().numpy() - expected).max() < 1e-6
