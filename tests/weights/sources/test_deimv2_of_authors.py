"""Files of DEIMv2's authors: read and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import boxwright
from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipes import resolve
from boxwright.detector import Detector
from boxwright.passport import Origin
from boxwright.structures import Category
from boxwright.weights.source import SourceFiles
from boxwright.weights.sources.deimv2 import AuthorsDEIMv2
from weights.compared import Recorder
from weights.sources.stored_detections import assert_same_model, build_stored, compare_stored, save_layout

SMALL = {"head.num_queries": 30, "image_size": 96}


def save(detector: Detector, path: Path) -> Path:
    return save_layout(AuthorsDEIMv2().write(detector), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("deimv2_m", {"backbone.stem_channels": 8, "neck.hidden_dim": 64, "head.hidden_dim": 64}),
        ("deimv2_n", {"head.bin_scale": 6.0, "head.num_bins": 16}),
        ("deimv2_pico", {}),
        ("deimv2_femto", {"head.decoder.num_points": [3, 2], "neck.expansion": 0.5}),
    ],
)
def test_files_are_read_as_they_were_written(recipe: str, options: dict[str, Any], tmp_path: Path) -> None:
    detector = boxwright.build(recipe, num_classes=80, overrides=SMALL | options).eval()
    again = boxwright.load(save(detector, tmp_path / "best.pth"), overrides={"head.num_queries": 30})
    assert_same_model(again, detector)


def test_folders_of_the_hub_state_blocks_and_queries() -> None:
    """Later blocks are left out; without a configuration the usual ones are assumed."""
    with torch.device("meta"):
        detector = build_resolved(resolve("deimv2_s", SMALL).recipe, categories=[Category(0, "a")])
    files = SourceFiles(origin=Origin(source="a", kind=""), tensors=AuthorsDEIMv2().write(detector).tensors)
    described = AuthorsDEIMv2().describe(files)
    assert described.overrides["backbone.blocks"] == [3, 7, 11]
    assert any("backbone.blocks" in line for line in described.assumptions)
    config = {"DINOv3STAs": {"interaction_indexes": [2, 5, 8]}, "DEIMTransformer": {"num_queries": 30}}
    described = AuthorsDEIMv2().describe(replace(files, config=config))
    assert described.overrides["backbone.blocks"] == [2, 5, 8]
    assert described.overrides["head.num_queries"] == 30
    taken = described.table.locate(files.tensors)
    assert "backbone.vit.body.model.blocks.8.norm1.weight" in taken
    assert "backbone.vit.body.model.blocks.9.norm1.weight" not in taken
    for wrong, message in (
        ({"DINOv3STAs": {"interaction_indexes": [2, "x"]}}, r"its interaction_indexes are \[2, 'x'\], and should be"),
        ({"DEIMTransformer": {"num_queries": "all"}}, "its num_queries is 'all', and should be a number of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            AuthorsDEIMv2().describe(replace(files, config=wrong))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("backbone.dinov3.storage_tokens", "sizes L and X, with a transformer of DINOv3 itself, have no counterpart"),
        ("decoder.dec_bbox_head.1.layers.0.bias", "copies of one tensor differ"),
    ],
)
def test_what_has_no_counterpart(name: str, message: str, tmp_path: Path) -> None:
    layout = AuthorsDEIMv2().write(boxwright.build("deimv2_atto", num_classes=3, overrides=SMALL))
    torch.save({**layout.tensors, name: torch.ones(64)}, tmp_path / "atto.pth")
    with pytest.raises(ValueError, match=message):
        boxwright.load(tmp_path / "atto.pth")


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("dfine_n", {}, "head.decoder.design is standard, and has to be swiglu there"),
        ("ecdet_s", {}, "DEIMv2 has the parts vit_sta, hybrid_encoder and dfine; this detector has vit, averaged_pyr"),
        ("deimv2_s", {"backbone.blocks": [1, 2, 3]}, "the last of backbone.blocks is 3, and has to be 11 there"),
        ("deimv2_n", {"neck.fusion": "csp"}, "neck.fusion is csp, and has to be elan_slim there"),
    ],
)
def test_what_their_code_has_not_is_not_written(recipe: str, overrides: dict[str, Any], message: str) -> None:
    detector = boxwright.build(recipe, num_classes=3, overrides=SMALL | overrides)
    with pytest.raises(ValueError, match=message):
        AuthorsDEIMv2().write(detector)


@pytest.mark.parametrize("recipe", ["deimv2_s", "deimv2_atto"])
def test_the_same_detections(recipe: str, tmp_path: Path, record_comparison: Recorder) -> None:
    """The authors' code made the stored ones of files like this: weights that follow from names, our pixels."""
    stored = f"authors_{recipe}_detections.npz"
    detector, largest = compare_stored(save(build_stored(recipe, stored), tmp_path / "best.pth"), stored)
    project = "Intellindust-AI-Lab/DEIMv2 0fff8d4, its detections stored"
    note = "pixels resized by torch, not Pillow"
    record_comparison("deimv2", recipe, project, largest, inputs=detector.input_format, note=note)
