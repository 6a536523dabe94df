"""Files of D-FINE's and DEIM's authors: read and written, with what no tensor tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import boxwright
from boxwright.detector import Detector
from boxwright.passport import Origin, Passport
from boxwright.weights.files import read_source_files
from boxwright.weights.projects.dfine_names import make_dfine_table
from boxwright.weights.source import SourceFiles
from boxwright.weights.sources.dfine import AuthorsDFINE
from weights.compared import Recorder
from weights.sources.stored_detections import build_stored, compare_stored, save_layout

SMALL = {"head.num_queries": 30, "image_size": 96}


def save(detector: Detector, path: Path) -> Path:
    return save_layout(AuthorsDFINE().write(detector), path)


@pytest.mark.parametrize(
    ("recipe", "name", "options"),
    [
        ("dfine_n", "dfine_n.pth", {}),
        ("dfine_s", "dfine_s.pth", {"head.bin_scale": 6.0, "head.num_bins": 16}),
        ("deim_dfine_s", "deim_dfine_hgnetv2_s.pth", {"head.decoder.num_points": 2}),
    ],
)
def test_files_are_read_as_they_were_written(recipe: str, name: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = boxwright.build(recipe, num_classes=80, overrides=SMALL | options).eval()
    again = boxwright.load(save(detector, tmp_path / name), overrides={"head.num_queries": 30}).eval()
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        one, other = detector(images), again(images)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.boxes_cxcywh_norm, other.boxes_cxcywh_norm)
    assert again.recipe is not None
    ours, theirs = detector.recipe.to_dict(), again.recipe.to_dict()  # type: ignore[union-attr]
    assert ours["head"] == theirs["head"]
    assert ours["neck"] == theirs["neck"]
    assert theirs["input"]["image_size"] == 96


@pytest.mark.parametrize(("recipe", "count"), [("dfine_n", 2), ("dfine_s", 3), ("dfine_m", 3), ("dfine_l", 3)])
def test_every_tensor_has_a_name(recipe: str, count: int) -> None:
    detector = boxwright.build(recipe, num_classes=80, overrides=SMALL)
    layout = AuthorsDFINE().write(detector)
    table = make_dfine_table(count)
    assert set(table.locate(layout.tensors)) == set(detector.state_dict())
    scales = [name for name in layout.tensors if name.endswith("num_points_scale")]
    assert len(scales) == len(detector.head.layers)  # type: ignore[arg-type]
    assert layout.tensors["decoder.anchors"].shape[1] == sum((96 // stride) ** 2 for stride in (8, 16, 32)[3 - count :])


def test_sizes_are_told_by_tensors_and_the_activation_by_the_name_of_the_file(tmp_path: Path) -> None:
    detector = boxwright.build("dfine_m", num_classes=3, overrides=SMALL)
    described = AuthorsDFINE().describe(read_source_files(str(save(detector, tmp_path / "some.pth"))))
    assert described.recipe == "dfine_m"
    assert any("head.decoder.activation" in line for line in described.assumptions)
    assert [category.name for category in described.categories] == ["class_0", "class_1", "class_2"]
    tensors = AuthorsDFINE().write(detector).tensors
    renamed = SourceFiles(origin=Origin(source="deim_m.pth", kind=""), tensors=tensors)
    assert AuthorsDFINE().describe(renamed).recipe == "deim_dfine_m"
    assert AuthorsDFINE().describe(renamed).overrides["head.decoder.activation"] == "silu"
    passport = Passport(version="1", recipe="deim_dfine_m")
    ours = SourceFiles(origin=Origin(source="some.pth", kind=""), tensors=tensors, passport=passport)
    assert AuthorsDFINE().describe(ours).recipe == "deim_dfine_m"


def test_bins_that_end_elsewhere_are_refused() -> None:
    tensors = {**AuthorsDFINE().write(boxwright.build("dfine_n", num_classes=3, overrides=SMALL)).tensors}
    tensors["decoder.up"] = torch.tensor([0.7])
    with pytest.raises(ValueError, match=r"inner bins end at 0\.7"):
        AuthorsDFINE().describe(SourceFiles(origin=Origin(source="dfine_n.pth", kind=""), tensors=tensors))


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("rtdetr_r18", {}, "not a D-FINE with an HGNetv2"),
        ("dfine_s", {"neck.fusion": "csp"}, "neck.fusion is csp, and has to be elan there"),
    ],
)
def test_what_their_code_has_not_is_not_written(recipe: str, overrides: dict[str, Any], message: str) -> None:
    detector = boxwright.build(recipe, num_classes=3, overrides=SMALL | overrides)
    with pytest.raises(ValueError, match=message):
        AuthorsDFINE().write(detector)


def test_the_same_detections(tmp_path: Path, record_comparison: Recorder) -> None:
    """The authors' code made the stored ones of this file: weights that follow from names, pixels resized by torch."""
    stored = "authors_dfine_detections.npz"
    detector, largest = compare_stored(save(build_stored("dfine_n", stored), tmp_path / "dfine_n.pth"), stored)
    project, note = "Peterande/D-FINE 4a1f73a, its detections stored", "pixels resized by torch, not Pillow"
    record_comparison("dfine", "dfine_n", project, largest, inputs=detector.input_format, note=note)
