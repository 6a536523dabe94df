"""Files of DINO's authors: read and written."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

import boxwright
from boxwright.detector import Detector
from boxwright.weights.files import read_source_files
from boxwright.weights.projects.dino_names import make_dino_table
from boxwright.weights.sources.dino import AuthorsDINO
from parity.formula import set_weights
from weights.compared import Recorder
from weights.sources.stored_detections import compare_detections

SMALL = {
    "backbone.width": 8,
    "neck.hidden_dim": 64,
    "neck.num_layers": 1,
    "neck.num_heads": 4,
    "neck.feedforward_dim": 48,
    "head.hidden_dim": 64,
    "head.num_queries": 20,
    "head.decoder.num_layers": 2,
    "head.decoder.num_heads": 4,
    "head.decoder.feedforward_dim": 40,
}


def save(detector: Detector, path: Path, **replaced: Any) -> Path:
    tensors = {**AuthorsDINO().write(detector).tensors, **replaced}
    torch.save({"model": tensors, "epoch": 11, "args": Namespace(nheads=4)}, path)
    return path


@pytest.mark.parametrize("recipe", ["dino_r50", "dino_r50_5scale"])
def test_files_are_read_as_they_were_written(recipe: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = boxwright.build(recipe, num_classes=6, overrides=SMALL).eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    again = boxwright.load(save(detector, tmp_path / "checkpoint.pth")).eval()
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        one, other = detector(images), again(images)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.boxes_cxcywh_norm, other.boxes_cxcywh_norm)
    assert again.recipe is not None
    assert detector.recipe is not None
    ours, theirs = detector.recipe.to_dict(), again.recipe.to_dict()
    assert ours["head"] == theirs["head"]
    assert ours["neck"] == theirs["neck"]


def test_shared_heads_have_a_copy_for_each_layer_twice() -> None:
    detector = boxwright.build("dino_r50", num_classes=6, overrides=SMALL)
    tensors = AuthorsDINO().write(detector).tensors
    names = [f"{inside}class_embed.{i}.bias" for inside in ("", "transformer.decoder.") for i in range(2)]
    assert {name for name in tensors if "class_embed" in name and name.endswith("bias")} - set(names) == {
        "transformer.enc_out_class_embed.bias"
    }
    assert set(make_dino_table(3, 2).locate(tensors)) == set(list_weights(detector))


def list_weights(detector: Detector) -> list[str]:
    return [name for name in detector.state_dict() if not name.endswith("num_batches_tracked")]


def test_label_embeddings_beyond_the_classes_are_left_out(tmp_path: Path) -> None:
    detector = boxwright.build("dino_r50", num_classes=6, overrides=SMALL)
    path = save(detector, tmp_path / "checkpoint.pth", **{"label_enc.weight": torch.zeros(92, 64)})
    described = AuthorsDINO().describe(read_source_files(str(path)))
    assert described.overrides["head.denoising.num_queries"] == 0
    assert any("92 label embeddings" in line for line in described.assumptions)
    loaded = boxwright.load(path)
    assert torch.equal(loaded.get_parameter("head.contents.weight"), detector.get_parameter("head.contents.weight"))


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("rtdetr_r18", {}, "has the parts resnet, deformable_encoder and dino"),
        ("dino_r50", {"neck.position_shift": 0.5}, "neck.position_shift is 0.5, and has to be 0.0 there"),
    ],
)
def test_what_their_code_has_not_is_not_written(recipe: str, overrides: dict[str, Any], message: str) -> None:
    small = SMALL if recipe == "dino_r50" else {}
    detector = boxwright.build(recipe, num_classes=3, overrides=small | overrides)
    with pytest.raises(ValueError, match=message):
        AuthorsDINO().write(detector)


def test_the_same_detections(tmp_path: Path, record_comparison: Recorder) -> None:
    """The authors' code made the stored ones of this file: weights that follow from names, our prepared pixels."""
    size = {"image_size": 160, "input.max_size": 240}
    layers = {"neck.num_layers": 2, "head.decoder.num_layers": 2, "head.num_queries": 30}
    detector = boxwright.build("dino_r50", num_classes=7, overrides=size | layers)
    set_weights(detector)
    detector.float()
    with torch.no_grad():
        detector.necks[0].get_parameter("level_embedding").mul_(10)
        detector.head.get_parameter("contents.weight").mul_(5)
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": AuthorsDINO().write(detector).tensors}, path)
    again = boxwright.load(path, overrides=size | {"head.max_detections": 30})
    largest = compare_detections(again, "authors_dino_detections.npz")
    project, note = "IDEA-Research/DINO faa8520, its detections stored", "pixels prepared by ours, boxes clipped"
    record_comparison("dino", "dino_r50", project, largest, inputs=again.input_format, note=note)
