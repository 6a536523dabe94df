"""Files of RF-DETR's authors: read and written."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

import boxwright
from boxwright.detector import Detector
from boxwright.weights.files import read_source_files
from boxwright.weights.sources.rfdetr import RFDETR
from parity.formula import set_weights
from weights.compared import Recorder
from weights.sources.stored_detections import assert_same_model, compare_detections

SMALL: dict[str, Any] = {
    "backbone.table_size": 96,
    "backbone.blocks": [0, 1],
    "backbone.global_blocks": [1],
    "neck.out_channels": 64,
    "head.hidden_dim": 64,
    "head.num_queries": 30,
    "head.decoder.num_heads": 4,
    "head.decoder.num_sampling_heads": 8,
    "head.decoder.feedforward_dim": 40,
    "head.supervision.num_groups": 3,
    "image_size": 160,
}
WITH_MASKS = {**SMALL, "image_size": 96, "head.max_detections": 30}
ARGS = {"out_feature_indexes": [1, 2], "num_windows": 2, "sa_nheads": 4, "ca_nheads": 8, "resolution": 160}


def build_small(num_classes: int = 7, *, masks: bool = False) -> Detector:
    """Build a detector on the weights of ``formula.py``, of queries that differ."""
    recipe, overrides = ("rfdetr_s_seg", WITH_MASKS) if masks else ("rfdetr_n", SMALL)
    detector = boxwright.build(recipe, num_classes=num_classes, overrides=overrides)
    set_weights(detector)
    detector.float().eval()
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            parameter *= 5.0 if "contents" in name or ".ls" in name else 0.3 if "moves" in name else 1.0
    return detector


def save(detector: Detector, path: Path, args: dict[str, Any] = ARGS) -> Path:
    torch.save({"model": RFDETR().write(detector).tensors, "epoch": 11, "args": Namespace(**args)}, path)
    return path


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_files_are_read_as_they_were_written(masks: bool, tmp_path: Path) -> None:
    """Further groups of queries too, and the branch of masks, whose 1 x 1 convolutions are linear layers there."""
    detector = build_small(masks=masks)
    path = save(detector, tmp_path / "checkpoint.pth", {**ARGS, "resolution": 96 if masks else 160})
    assert_same_model(boxwright.load(path), detector)
    names = {name for name in RFDETR().write(detector).tensors if name.startswith("segmentation_head.")}
    assert len(names) == (35 if masks else 0)


def test_their_groups_of_queries_are_one_tensor() -> None:
    tensors = RFDETR().write(build_small()).tensors
    assert tensors["query_feat.weight"].shape == (90, 64)
    assert tensors["refpoint_embed.weight"].shape == (90, 4)
    assert not [name for name in tensors if "query_feat.weight." in name]


def test_what_tensors_do_not_tell_is_assumed(tmp_path: Path) -> None:
    detector = build_small()
    described = RFDETR().describe(read_source_files(str(save(detector, tmp_path / "checkpoint.pth", {}))))
    assert described.overrides["backbone.blocks"] == [2, 5, 8, 11]
    assert described.overrides["backbone.global_blocks"] == [3, 6, 9]
    assert described.overrides["head.decoder.num_sampling_heads"] == 16
    assert len(described.assumptions) == 3


def test_names_of_classes_stand_in_the_arguments(tmp_path: Path) -> None:
    """The first row of their class layer is of none of them."""
    path = save(build_small(3), tmp_path / "checkpoint.pth", {**ARGS, "class_names": ["cat", "dog"]})
    assert [category.name for category in boxwright.load(path).categories][1:] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("backbone.0.projector.stages.1.1.bias", "RF-DETR of several levels has no counterpart here"),
    ],
)
def test_what_has_no_counterpart(name: str, message: str, tmp_path: Path) -> None:
    tensors = {**RFDETR().write(build_small()).tensors, name: torch.zeros(1)}
    torch.save({"model": tensors}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=message):
        boxwright.load(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("rtdetr_r18", {}, "has the parts vit, multi_scale_projector and lwdetr"),
        ("rfdetr_n", {**SMALL, "backbone.final_norm": False}, "backbone.final_norm is False, and has to be True there"),
    ],
)
def test_what_their_code_has_not_is_not_written(recipe: str, overrides: dict[str, Any], message: str) -> None:
    detector = boxwright.build(recipe, num_classes=3, overrides=overrides)
    with pytest.raises(ValueError, match=message):
        RFDETR().write(detector)


def test_the_same_detections(tmp_path: Path, record_comparison: Recorder) -> None:
    """The authors' code made the stored ones of this file: weights that follow from names, our prepared pixels."""
    path = save(build_small(), tmp_path / "checkpoint.pth")
    again = boxwright.load(path, overrides={"head.max_detections": 30})
    largest = compare_detections(again, "authors_rfdetr_detections.npz")
    project, note = "roboflow/rf-detr 35ac6ab, its detections stored", "pixels prepared by ours, boxes clipped"
    record_comparison("rfdetr", "rfdetr_n", project, largest, inputs=again.input_format, note=note)
