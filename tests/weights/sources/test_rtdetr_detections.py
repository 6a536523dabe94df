"""RT-DETR and RT-DETRv2 of their authors: files beside detections that their code made of the same weights and images.

The detections were made once with lyuwenyu/RT-DETR 068dfde, ``rtdetr_pytorch`` and ``rtdetrv2_pytorch``, whose
``register`` was replaced by a stub: its ``PResNet``, encoder and decoder at small widths, its post-processing, boxes
cut to the image; pixels were resized by torch. Only names, shapes, statistics of norms and detections are stored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.compose.parts import find_part
from boxwright.data.images import resample
from boxwright.passport import Origin
from boxwright.weights.files import read_source_files
from boxwright.weights.model import build_model, convert_files
from boxwright.weights.recognize import recognize
from boxwright.weights.source import SourceFiles
from boxwright_runtime.input_format import InputFormat
from weights.compared import Recorder
from weights.source_checks import Differences, assert_same_detections, draw_images
from weights.sources.rtdetr_files import NUM_QUERIES, POINTS, SIDE, draw_input, make_backbone, make_file

PROJECT = "lyuwenyu/RT-DETR 068dfde, its {} stored"


@pytest.mark.parametrize("variant", POINTS)
def test_the_same_detections(variant: str, tmp_path: Path, record_comparison: Recorder) -> None:
    tensors, detections = make_file(variant)
    torch.save({"ema": {"module": tensors}}, tmp_path / f"{variant}.pth")
    overrides = {"head.num_queries": NUM_QUERIES, "head.max_detections": NUM_QUERIES}
    if variant == "rtdetr":
        overrides["image_size"] = SIDE
    weights = convert_files(read_source_files(tmp_path / f"{variant}.pth"), overrides)
    decoder = weights.recipe.head.options["decoder"]
    assert decoder.sampling_method == ("discrete" if variant.endswith("dsp") else "default")
    assert weights.recipe.input.image_size == SIDE
    detector, largest = build_model(weights), Differences(0.0, 0.0)
    for image, expected in zip(draw_images(), detections, strict=True):
        assert len(expected.labels.unique()) > 1
        largest = largest.join(assert_same_detections(detector.predict(image), expected))
    assert torch.cat([expected.scores for expected in detections]).std() > 0.01
    source, inputs, note = weights.origin.kind, detector.input_format, "pixels resized by torch, not Pillow"
    record_comparison(source, variant, PROJECT.format("detections"), largest, inputs=inputs, note=note)


def test_pixels_are_those_of_the_authors_but_for_rounding() -> None:
    """Pillow resizes there, and rounds otherwise: 1 of 255, which is more than the tolerance with random weights."""
    rule = InputFormat(image_size=SIDE).resize_rule(SIDE)
    for image in draw_images():
        ours = resample(image, rule.window(*image.shape[:2]), SIDE, SIDE, resampling=rule.resampling)
        theirs = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        difference = (ours.permute(1, 2, 0).int() - torch.from_numpy(theirs.astype(np.int32))).abs()
        assert difference.max() <= 1


@pytest.mark.parametrize("variant", ["r18", pytest.param("r50", marks=pytest.mark.slow)])
def test_levels_of_backbones(variant: str, record_comparison: Recorder) -> None:
    tensors, levels = make_backbone(variant)
    files = SourceFiles(origin=Origin(source="ResNet.pth", kind=""), tensors=tensors)
    kind, source = recognize(files)
    model = source.describe_backbone(files)
    part = dict(model.part)
    backbone = find_part("backbones", part.pop("name"))(**part, levels=("c3", "c4", "c5"))
    converted = model.table.read(tensors, backbone.state_dict())
    assert not converted.skipped
    backbone.load_state_dict(converted.tensors)
    images, largest = draw_input(), 0.0
    with torch.no_grad():
        outputs = backbone.eval()(images)
    for actual, expected in zip(outputs.values(), levels, strict=True):
        torch.testing.assert_close(actual[:, ::64], expected, rtol=1e-4, atol=1e-5)
        largest = max(largest, float((actual[:, ::64] - expected).abs().max() / expected.std()))
    shape = (images.shape[2], images.shape[3])
    record_comparison(kind, variant, PROJECT.format("levels"), {"levels": largest}, images=[shape])
