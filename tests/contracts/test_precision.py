"""Any neck and any head predict in half, bfloat16 and double precision."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from boxwright.compose.parts import list_parts
from boxwright.detector import Detector
from boxwright_runtime.detections import Detections
from part_checks import composed
from random_weights import calibrate, shake

TOLERANCES = {torch.float64: 1e-4, torch.float16: 0.2, torch.bfloat16: 0.3}
"""Of the best score: rounding of weights and layers, which may also select other regions or queries."""

PAIRS = [
    *((neck, "rtdetr") for neck in list_parts("necks")),
    *(("hybrid_encoder", head) for head in list_parts("heads") if head != "rtdetr"),
]

parts = pytest.mark.parametrize(("neck", "head"), PAIRS, ids=str)


def make_detector(neck: str, head: str) -> Detector:
    detector = composed("resnet_vd", [neck], head, 4)
    shake(detector)
    calibrate(detector, torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3))
    return detector.eval()


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, height, width, generator=generator) for height, width in ((70, 90), (64, 64))]


@parts
def test_a_detector_predicts_in_any_precision(neck: str, head: str) -> None:
    detector = make_detector(neck, head)
    expected = detector.predict(images())
    for dtype, tolerance in TOLERANCES.items():
        for ours, exact in zip(deepcopy(detector).to(dtype).predict(images()), expected, strict=True):
            assert isinstance(ours, Detections)
            assert ours.boxes.dtype == ours.scores.dtype == torch.promote_types(dtype, torch.float32)
            assert ours.boxes.isfinite().all()
            assert ours.scores[0].item() == pytest.approx(exact.scores[0].item(), abs=tolerance), dtype
