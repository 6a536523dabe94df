"""A detector that begins with another one: what fits, and class by class where classes are others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import boxwright
from boxwright.detector import Detector
from boxwright.passport import Origin, Passport
from boxwright.structures import Category
from boxwright.weights.backbone import NO_NAMESAKE
from boxwright.weights.classes import NEW_FRACTION, class_tensors, match_classes
from boxwright.weights.model import ModelWeights
from boxwright.weights.transfer import load_detector_weights
from boxwright.workflows.beginning import report_detector_transfer
from random_weights import shake

SOURCE_NAMES = ("circle", "motorbike", "N/A", "N/A", "square")
NAMES = ("square", "star", "motorcycle")

SMALL: dict[str, dict[str, Any]] = {
    "rtdetr_tiny": {"backbone.width": 8},
    "faster_rcnn_r18_fpn": {"backbone.width": 8, "neck.out_channels": 16, "head.boxes.hidden_dim": 32},
    "retinanet_r18_fpn": {"backbone.width": 8, "neck.out_channels": 16},
    "efficientdet_d0": {},
}
SOFTMAX: dict[str, dict[str, Any]] = {"detr_r50": {"backbone.width": 8, "neck.num_layers": 1}}
CLASS_LAYERS = {"faster_rcnn_r18_fpn": "head.boxes.classes", "detr_r50": "head.classes"}


def build(recipe: str, names: Sequence[str], seed: int, **more: Any) -> Detector:
    torch.manual_seed(seed)
    categories = [Category(i, name) for i, name in enumerate(names)]
    detector = boxwright.build(
        recipe, categories=categories, overrides={"image_size": 64, **{**SMALL, **SOFTMAX}[recipe], **more}
    )
    if seed:
        shake(detector)
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean)
    return detector.eval()


def weights_of(detector: Detector) -> ModelWeights:
    assert isinstance(detector.recipe, boxwright.Recipe)
    return ModelWeights(
        recipe=detector.recipe,
        categories=detector.categories,
        tensors=detector.state_dict(),
        origin=Origin(source="a run", kind="boxwright"),
        passport=Passport(version="any"),
    )


def test_classes_are_matched_by_what_they_mean() -> None:
    own, source = ([Category(i, name) for i, name in enumerate(names)] for names in (NAMES, SOURCE_NAMES))
    assert match_classes(own, source) == [(0, 4), (2, 1)]
    twice = [Category(0, "Square"), Category(1, "square")]
    assert match_classes(own, twice) == []


@pytest.mark.parametrize("recipe", SMALL)
def test_all_of_a_detector_of_the_same_classes(recipe: str) -> None:
    source, detector = build(recipe, SOURCE_NAMES[:2], 1), build(recipe, SOURCE_NAMES[:2], 2)
    transfer = load_detector_weights(detector, weights_of(source))
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(detector.state_dict()[name], tensor, rtol=0, atol=0)
    assert (transfer.skipped, transfer.new, transfer.new_classes) == ({}, (), ())
    assert set(transfer.class_layers) == set(class_tensors(detector))
    names = {name for name in source.state_dict() if not name.endswith("num_batches_tracked")}
    assert {*transfer.loaded, *transfer.class_layers} == names


@pytest.mark.parametrize("recipe", SMALL)
def test_other_classes(recipe: str) -> None:
    source, detector, fresh = build(recipe, SOURCE_NAMES, 1), build(recipe, NAMES, 2), build(recipe, NAMES, 2)
    transfer = load_detector_weights(detector, weights_of(source))
    assert transfer.kept_classes == ("square", "motorcycle")
    assert transfer.new_classes == ("star",)
    rows = class_tensors(detector)
    before, after, theirs = fresh.state_dict(), detector.state_dict(), source.state_dict()
    for name, tensor in after.items():
        if name not in rows:
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)
            continue
        form = rows[name]
        ours, old, other = (
            x.view(form.blocks, count + form.others, form.rows, *x.shape[1:])
            for x, count in ((tensor, 3), (before[name], 3), (theirs[name], 5))
        )
        new = old[:, 1]
        if form.softmax:
            new = other[:, 5] if tensor.ndim > 1 else other[:, 5] - math.log(1 / NEW_FRACTION)
        for label, origin in ((0, other[:, 4]), (2, other[:, 1]), (1, new)):
            torch.testing.assert_close(ours[:, label], origin, rtol=0, atol=0)
        if form.others:
            torch.testing.assert_close(ours[:, 3], other[:, 5], rtol=0, atol=0)


@pytest.mark.parametrize("num_new", [1, 40])
@pytest.mark.parametrize("recipe", ["faster_rcnn_r18_fpn", "detr_r50"])
def test_new_classes_take_no_probability_from_known_ones(recipe: str, num_new: int) -> None:
    """Only background gives some away, however many are new, and at whatever level the logits of the source are."""
    names = SOURCE_NAMES[:2]
    source, detector = build(recipe, names, 1), build(recipe, (*names, *(f"new {i}" for i in range(num_new))), 0)
    layer = source.get_submodule(CLASS_LAYERS[recipe])
    layer.bias.data -= 12.0
    load_detector_weights(detector, weights_of(source))
    vectors = torch.randn(50, layer.in_features)
    before, after = layer(vectors).softmax(-1), detector.get_submodule(CLASS_LAYERS[recipe])(vectors).softmax(-1)
    background = before[:, -1:]
    torch.testing.assert_close(after[:, :2], before[:, :2] / (1 + NEW_FRACTION * background))
    torch.testing.assert_close(after[:, 2:-1].sum(-1), NEW_FRACTION * after[:, -1])
    assert before[:, :2].max() > 0.4


def test_another_neck_keeps_what_it_was_initialized_with() -> None:
    source = build("retinanet_r18_fpn", NAMES, 1)
    detector = build("retinanet_r18_fpn", NAMES, 2, neck="pafpn")
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    transfer = load_detector_weights(detector, weights_of(source))
    assert transfer.new
    assert all(name.startswith("necks.") for name in transfer.new)
    for name in transfer.new:
        torch.testing.assert_close(detector.state_dict()[name], before[name], rtol=0, atol=0)
    assert torch.equal(detector.backbone.conv1.weight, source.backbone.conv1.weight)


def test_nothing_that_fits_is_an_error() -> None:
    source = build("retinanet_r18_fpn", NAMES, 1)
    detector = build("rtdetr_tiny", NAMES, 2)
    with pytest.raises(ValueError, match=r"a run: nothing of it fits .* backbone resnet, neck fpn, head retinanet"):
        load_detector_weights(detector, weights_of(source))


def test_what_is_not_taken_has_a_reason() -> None:
    detector = build("retinanet_r18_fpn", NAMES, 2)
    weights = weights_of(build("retinanet_r18_fpn", NAMES, 1))
    name = "head.box_tower.0.weight"
    others = {"head.unheard": torch.zeros(1), name: torch.zeros(3), "backbone.conv1.weight": torch.zeros(2)}
    transfer = load_detector_weights(detector, replace(weights, tensors={**weights.tensors, **others}))
    assert transfer.skipped["head.unheard"] == NO_NAMESAKE
    assert transfer.skipped[name] == "[3] there and [128, 128, 3, 3] here"
    assert transfer.skipped["backbone.conv1.weight"] == "[2] there and [8, 3, 7, 7] here"
    assert set(transfer.skipped) == set(others)
    lines = report_detector_transfer(transfer)
    assert "  1 skipped, of which there are none here by that name: head.unheard" in lines
    (line,) = [line for line in lines if "2 skipped, which have another shape here: " in line]
    assert f"{name} ([3] there and [128, 128, 3, 3] here)" in line
