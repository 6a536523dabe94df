"""PANet's mask branch beside its authors': their numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform

from boxwright.regions.mask_branch import MaskBranch
from boxwright.regions.options import MaskOptions, RoIOptions
from boxwright.regions.roi_extractor import RoISource
from conformance import compare_tensors, note_inputs

WITHOUT_BIAS = ("first", "middle", "last", "whole.0", "whole.1")


@pytest.mark.conforms("PANet's mask branch", "panet")
def test_adaptive_features_and_fully_connected_fusion() -> None:
    source = RoISource(6, [4, 8, 16], RoIOptions(extractor="adaptive"))
    ours = MaskBranch(source, 3, MaskOptions(hidden_dim=6, fully_connected=True))
    set_weights(ours)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.startswith(WITHOUT_BIAS) and name.endswith("bias"):
                parameter.zero_()
    regions = [uniform(f"region {i}", 3, 6, 14, 14) for i in range(3)]
    note_inputs(regions)
    logits = ours.predict(regions, torch.tensor([2, 0, 1]))
    with np.load(Path(__file__).parent / "data" / "panet_masks.npz") as numbers:
        expected = numbers["logits"]
    assert np.abs(expected).max() > 1
    # Stored in float32.
    compare_tensors("outputs", logits, expected, limit=1e-6, name="masks")
