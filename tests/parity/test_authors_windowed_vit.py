"""A vision transformer with windows beside RF-DETR's: its numbers, made once with its code (see README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import set_weights, uniform

from boxwright.backbones.vit import ViT
from conformance import compare, compare_tensors, note_inputs


@pytest.mark.conforms("windows of a ViT", "rfdetr")
def test_maps_and_gradients() -> None:
    ours = ViT(model="test_vit", blocks=(1, 3, 5), final_norm=True, num_windows=2, global_blocks=(1, 3)).eval()
    # The weights follow from the names, which began with timm's.
    set_weights(ours.vit)
    images = uniform("images", 2, 3, 160, 160).requires_grad_()
    note_inputs(images)
    levels = ours(images)
    with np.load(Path(__file__).parent / "data" / "windowed_vit.npz") as numbers:
        theirs = dict(numbers)
    assert list(levels) == ["block1", "block3", "block5"]
    for name, level in levels.items():
        # Stored are every eighth channel, in float32, and every eighth pixel of the gradient.
        compare_tensors("outputs", level[:, ::8], theirs[name], limit=1e-6, of=name)
    total = sum((x * uniform(f"direction {i}", *x.shape)).sum() for i, x in enumerate(levels.values()))
    (gradient,) = torch.autograd.grad(total, images)
    difference = gradient[:, :, ::8, ::8].numpy() - theirs["image_gradient"]
    relative = np.linalg.norm(difference) / np.linalg.norm(theirs["image_gradient"])
    compare("gradients", float(relative), 1e-9, name="of images")
