"""A small detector on a backbone of every form trains on drawn shapes: its loss falls to less than a half."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from backbone_forms import FORMS
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from recorded_losses import RecordedLosses

STEPS = 30
OPTIONS: dict[str, Any] = {
    "image_size": 96,
    "neck.out_channels": 32,
    "neck.extra_levels": 0,
    "head.num_convs": 2,
    "head.anchors.scale": 2,
    "augment": dict.fromkeys(("photometric", "channel_shuffle", "zoom_out", "iou_crop", "flip"), 0),
    "train.steps": STEPS,
    "train.batch_size": 4,
    "train.lr": 2e-3,
    "train.backbone_lr": None,
    "train.ema_decay": 0.0,
    "train.schedule.warmup_steps": 5,
    "train.batches.multi_scale": 0,
    "train.runtime.workers": 0,
}
FAST = ("botnet_t",)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    folder = tmp_path_factory.mktemp("shapes")
    draw_data_set(folder, train=8, val=1, image_size=96, seed=3)
    return open_data(folder, "train")


@pytest.mark.parametrize(
    "form", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FORMS]
)
def test_the_loss_falls_to_less_than_a_half(form: str, shapes: DetectionData, tmp_path: Path) -> None:
    recipe = resolve("retinanet_r18_fpn", {**OPTIONS, "backbone": FORMS[form]}).recipe
    detector, losses = build_resolved(recipe, categories=shapes.categories), RecordedLosses()
    run_training(
        Run(
            detector=detector,
            recipe=recipe,
            data=shapes,
            augmentation=recipe.augment,
            folder=tmp_path / "run",
            callbacks=[losses],
        )
    )
    assert len(losses.values) == STEPS
    first, last = mean(losses.values[:3]), mean(losses.values[-5:])
    print(f"{form}: {first:.3f} to {last:.3f}")
    assert last < first / 2
