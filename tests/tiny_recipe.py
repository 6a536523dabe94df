"""A recipe of a run that takes a second."""

from __future__ import annotations

from typing import Any

TINY_RECIPE: dict[str, Any] = {
    "backbone": {"name": "resnet_vd", "depth": 18, "width": 8},
    "neck": {"name": "hybrid_encoder", "hidden_dim": 16, "num_heads": 2, "feedforward_dim": 32, "expansion": 0.5},
    "head": {
        "name": "rtdetr",
        "hidden_dim": 16,
        "num_queries": 20,
        "decoder": {"num_heads": 2, "feedforward_dim": 32, "num_layers": 2},
        "denoising": {"num_queries": 8},
    },
    "input": {"image_size": 64},
    "train": {
        "steps": 6,
        "batch_size": 4,
        "lr": 0.001,
        "schedule": {"no_aug_fraction": 0.2, "evaluations": 2},
        "batches": {"multi_scale": 0.5},
        "runtime": {"device": "cpu", "precision": "float32"},
    },
}
"""Trains in a tenth of a second per step, with everything on that RT-DETR has: denoising, several sizes, average."""
