"""Models of transformers at the size of those on its hub, at their input sizes, beside transformers' own.

`pytest -m slow -rP` on this file prints the largest differences; with ``BOXWRIGHT_RECORD`` it records them, see
``compared.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    DeformableDetrImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrV2ForObjectDetection,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
)

from boxwright.weights.model import build_model
from weights.compared import Recorder, name_version
from weights.rtdetr_models import calibrate as calibrate_rtdetr
from weights.rtdetr_models import make_config
from weights.sources.deformable_checks import make_released
from weights.transformers_models import assert_equal_detections, calibrate, read

SHAPES = ((250, 310), (1450, 1010), (150, 420))
"""The second is larger than its input; at the last one the maximal size binds."""

GAIN = 0.05
"""Of residual blocks, so that rounding stays far below the tolerance."""

WIDE = {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384] * 3}
RTDETRS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "rtdetr_r50vd": (1, 50, {}),
    "rtdetr_r50vd_m": (1, 50, {"hidden_expansion": 0.5}),
    "rtdetr_r101vd": (1, 101, WIDE),
    "rtdetr_v2_r50vd": (2, 50, {}),
    "rtdetr_v2_r50vd_m": (2, 50, {"hidden_expansion": 0.5}),
}
DEFORMABLES = {
    "deformable-detr": "base",
    "deformable-detr-single-scale": "single-scale",
    "deformable-detr-single-scale-dc5": "single-scale, dilated",
    "deformable-detr-with-box-refine": "refine",
    "deformable-detr-with-box-refine-two-stage": "two-stage",
}
NAMES = ("detr-resnet-50", "detr-resnet-50-dc5", "table-transformer-detection", *DEFORMABLES, *RTDETRS)


def make(name: str) -> tuple[Any, Any]:
    """Make a model with random weights, and the processor of its images."""
    torch.manual_seed(0)
    side = {"shortest_edge": 800, "longest_edge": 1333}
    if name in DEFORMABLES:
        return make_released(DEFORMABLES[name], residual_gain=GAIN), DeformableDetrImageProcessor(size=side)
    if name in RTDETRS:
        version, depth, options = RTDETRS[name]
        kind = RTDetrForObjectDetection if version == 1 else RTDetrV2ForObjectDetection
        model: Any = kind(make_config(version, depth, width=64, num_labels=80, **options))
        calibrate_rtdetr(model, residual_gain=GAIN)
        return model.eval(), RTDetrImageProcessor()
    if name == "table-transformer-detection":
        config: Any = TableTransformerConfig(backbone="resnet18", num_queries=15, num_labels=2)
        model = TableTransformerForObjectDetection(config)
    else:
        model = DetrForObjectDetection(DetrConfig(backbone="resnet50", dilation="dc5" in name, num_labels=91))
    # So that the queries of each tell classes apart, and none is sure.
    calibrate(model, residual_gain=GAIN, class_gain=100.0 if name == "detr-resnet-50" else 8.0)
    return model.eval(), DetrImageProcessor(size=side)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_detections_at_released_size(name: str, tmp_path: Path, record_comparison: Recorder) -> None:
    model, processor = make(name)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = read(tmp_path)
    assert weights.recipe.input.image_size == (640 if name in RTDETRS else 800)
    # The best of many thousand scores are close to each other: 20 times the tolerance apart is enough.
    largest = assert_equal_detections(build_model(weights), model, processor, SHAPES, spread=2e-3)
    source, project, inputs = weights.origin.kind, name_version("transformers"), weights.recipe.input
    record_comparison(source, name, project, largest, inputs=inputs, images=SHAPES, size="released")
    print(f"{name}: scores {largest.scores:.1e}, boxes {largest.boxes:.1e} pixels")
