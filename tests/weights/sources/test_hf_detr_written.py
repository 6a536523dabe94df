"""Detectors of ours in the layout of transformers' DETR, read by transformers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection

import boxwright
from boxwright.detector import Detector
from boxwright.structures import Category
from boxwright.weights.source import Layout
from boxwright.weights.sources.hf_detr import HuggingFaceDETR
from random_weights import calibrate, shake
from weights.compared import Recorder, name_version
from weights.source_checks import SHAPES, assert_same_detections, draw_images
from weights.transformers_models import compare_outputs, expect, read, write_folder

OURS: dict[str, dict[str, Any]] = {
    "r50": {"backbone.width": 8},
    "r18, learned positions": {"backbone.width": 8, "backbone.depth": 18, "neck.positions": "learned"},
    "r18, dilated": {"backbone.depth": 18, "backbone.dilation": "after_first"},
    "r34, trained norms": {"backbone.width": 8, "backbone.depth": 34, "backbone.norm": "batch"},
    "table": {"backbone.width": 8},
}


def build_ours(kind: str, **overrides: Any) -> Detector:
    """A small detector of ours, with weights that are far from special."""
    options = {
        **{f"neck.{key}": value for key, value in {"num_layers": 2, "num_heads": 2, "feedforward_dim": 48}.items()},
        "neck.hidden_dim": 32,
        "head.hidden_dim": 32,
        "head.num_queries": 9,
        "head.decoder.num_layers": 1,
        "head.decoder.num_heads": 4,
        "head.decoder.feedforward_dim": 64,
        "input.image_size": 96,
        "input.max_size": 144,
        "input.size_rule": "transformers",
        **OURS[kind],
        **overrides,
    }
    if options.get("neck.positions") == "learned":
        options["head.positions"] = "learned"
    torch.manual_seed(3)
    recipe = "table_transformer" if kind == "table" else "detr_r50"
    detector = boxwright.build(recipe, categories=[Category(7, "cat"), Category(3, "a dog")], overrides=options)
    shake(detector)
    if "learned" in kind:
        detector.head.positions.load_state_dict(detector.necks[0].positions.state_dict())
    calibrate(detector, torch.randn(1, 3, 96, 128))
    return detector.eval()


def save_layout(layout: Layout, folder: Path) -> None:
    write_folder(folder, layout.tensors, layout.files["config.json"], layout.files["preprocessor_config.json"])


@pytest.mark.parametrize("kind", list(OURS))
def test_transformers_reads_what_we_write(kind: str, tmp_path: Path, record_comparison: Recorder) -> None:
    detector = build_ours(kind)
    save_layout(HuggingFaceDETR().write(detector), tmp_path)
    theirs, info = AutoModelForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert theirs.config.id2label == {0: "cat", 1: "a dog"}
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    for image in draw_images():
        pixels = processor(images=image, return_tensors="pt")
        assert tuple(pixels["pixel_values"].shape[-2:]) == detector.input_format.input_size(*image.shape[:2])
        assert_same_detections(detector.predict(image), expect(theirs.eval(), processor, image))
    # In double precision: with random weights float32's rounding alone reaches the tolerance.
    values = pixels["pixel_values"].double()
    with torch.no_grad():
        ours, output = deepcopy(detector).double()(values), theirs.double()(pixel_values=values)
    largest = compare_outputs(ours, output)
    project, note = name_version("transformers"), "in double precision"
    record_comparison("hf_detr", f"{kind}, written", project, largest, images=SHAPES[-1:], note=note)
    again = read(tmp_path)
    assert again.notes == ()
    for name, tensor in again.tensors.items():
        assert torch.equal(tensor, detector.state_dict()[name]), name


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("retinanet_r18_fpn", {}, "not a DETR with a ResNet and one encoder, but resnet > fpn > retinanet"),
        (
            "detr_r50",
            {"backbone.block.activation": "silu"},
            "backbone.block.activation is silu, and has to be relu there",
        ),
        ("detr_r50", {"neck.pre_norm": True}, "neck.pre_norm is True, and has to be False there"),
        ("detr_r50", {"backbone.dilation": "all"}, "backbone.dilation is all"),
        (
            "detr_r50",
            {"backbone.dilation": "after_first", "backbone.width": 8},
            "backbone.width is 8, and has to be 64",
        ),
        ("detr_r50", {"head.nms_threshold": 0.5}, "head.nms_threshold is 0.5, and has to be None there"),
        ("detr_r50", {"head.eval_layers": 2}, "head.decoder.eval_layers is 2, and has to be 6 there"),
        ("detr_r50", {"head.positions": "none"}, "neck.positions is sine, and has to be none there"),
        ("detr_r50", {"input.channel_order": "bgr"}, "no counterpart of its preprocessing: input.channel_order bgr"),
    ],
)
def test_other_detectors_are_not_written(recipe: str, overrides: Mapping[str, Any], message: str) -> None:
    with torch.device("meta"):
        detector = boxwright.build(recipe, num_classes=2, overrides=overrides)
    with pytest.raises(ValueError, match=message) as error:
        HuggingFaceDETR().write(detector)
    assert "\n" not in str(error.value)


def test_two_tables_of_positions_are_not_written_as_one() -> None:
    detector = build_ours("r18, learned positions")
    detector.head.positions.learned.rows.weight.data += 1
    with pytest.raises(ValueError, match=r"differs from necks\.0\.positions\.learned\.rows\.weight"):
        HuggingFaceDETR().write(detector)
