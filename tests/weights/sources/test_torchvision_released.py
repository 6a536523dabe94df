"""Detectors of torchvision at the size of its releases, on inputs of 800 to 1333 pixels, beside its own.

`pytest -m slow -rP` on this file prints the largest differences; with ``BOXWRIGHT_RECORD`` it records them, see
``compared.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from boxwright.weights.files import read_source_files
from boxwright.weights.model import build_model, convert_files
from boxwright_runtime.detections import Detections
from weights.compared import Recorder, name_version
from weights.source_checks import Differences, Expected, assert_same_detections, draw_images
from weights.torchvision_models import RELEASED_NAMES, assert_same_masks, calibrate

SHAPES = ((250, 310), (1450, 1010), (150, 420))
"""The second is larger than its input; at the last one the maximal size binds."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED_NAMES)
@torch.no_grad()
def test_detections_at_released_size(name: str, tmp_path: Path, record_comparison: Recorder) -> None:
    torch.manual_seed(0)
    theirs = calibrate(get_model(name, weights=None, weights_backbone=None), residual_gain=0.05)
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    model = convert_files(read_source_files(tmp_path / "model.pth"))
    assert (model.recipe.input.image_size, model.recipe.input.max_size) == (800, 1333)
    ours, shift = build_model(model), 1 if "rcnn" in name else 0
    largest = Differences(0.0, 0.0)
    for image in draw_images(SHAPES):
        (result,) = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
        assert len(result["scores"]) > 10
        assert len(result["labels"].unique()) > 2
        expected, actual = Expected(result["scores"], result["labels"] - shift, result["boxes"]), ours.predict(image)
        assert isinstance(actual, Detections)
        largest = largest.join(assert_same_detections(actual, expected))
        if name.startswith("mask"):
            assert_same_masks(actual, result)
    source, project = model.origin.kind, name_version("torchvision")
    record_comparison(source, name, project, largest, inputs=ours.input_format, images=SHAPES, size="released")
    print(f"torchvision:{name}: scores {largest.scores:.1e}, boxes {largest.boxes:.1e} pixels")
