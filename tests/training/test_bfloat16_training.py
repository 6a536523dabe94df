"""Training in bfloat16 on a CPU, where maps are one cell wide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.data.records import DetectionData
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from recorded_losses import RecordedLosses

OPTIONS: dict[str, Any] = {
    "input.image_size": 64,
    "train.steps": 24,
    "train.batch_size": 4,
    "train.schedule.warmup_steps": 4,
    "train.schedule.evaluations": 1,
    "train.batches.multi_scale": 0.0,
    "train.runtime.device": "cpu",
    "train.runtime.workers": 0,
}


@pytest.mark.slow
def test_retinanet_at_64_pixels_does_not_diverge(data: DetectionData, tmp_path: Path) -> None:
    """Its coarsest maps are one cell: with unwritten memory in their gradients, 8 of 8 runs diverged."""
    losses: dict[str, list[float]] = {}
    for precision in ("float32", "bfloat16"):
        recorded = RecordedLosses()
        recipe = resolve("retinanet_r18_fpn", {**OPTIONS, "train.runtime.precision": precision}).recipe
        torch.manual_seed(0)
        detector = build_resolved(recipe, categories=data.categories)
        run = Run(detector=detector, recipe=recipe, data=data, augmentation=recipe.augment, folder=tmp_path / precision)
        progress = run_training(replace(run, callbacks=[recorded]))
        losses[precision] = recorded.values
        assert progress.failed_steps == 0
    first, last = (sum(losses["bfloat16"][part]) / 8 for part in (slice(8), slice(-8, None)))
    assert last < first
    assert last == pytest.approx(sum(losses["float32"][-8:]) / 8, rel=0.3)
