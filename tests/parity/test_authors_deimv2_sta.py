"""DEIMv2's adapter and its own transformer: their numbers, made once with their code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from formula import set_weights, uniform
from stored_gradients import check_gradients

from boxwright.backbones.vit_sta import ViTSTA
from conformance import compare_tensors, note_inputs


@pytest.mark.conforms("spatial tuning adapter", "deimv2")
def test_outputs_and_gradients() -> None:
    ours = ViTSTA(blocks=(0, 1, 2), stem_channels=4, out_channels=6, bare=True).eval()
    set_weights(ours)
    images = uniform("images", 2, 3, 64, 96)
    note_inputs(images)
    levels = ours(images)
    with np.load(Path(__file__).parent / "data" / "deimv2_sta.npz") as numbers:
        theirs = dict(numbers)
    for name, level in levels.items():
        # Stored in float32; timm makes the rotations in it.
        compare_tensors("outputs", level, theirs[name], limit=1e-6, of=name)
    sum((x * uniform(f"direction of {name}", *x.shape)).sum() for name, x in levels.items()).backward()
    parameters = dict(ours.named_parameters())
    gradients = {name: parameters[name].grad for name in theirs["gradient_names"].tolist()}
    assert len(gradients) > 20
    check_gradients(gradients, theirs, tolerance=1e-6)
