"""Deformable DETR's authors' files: names by the rules of transformers' own conversion, which goes the other way."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DeformableDetrImageProcessor

import boxwright
from boxwright.structures import Category
from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, build_model, convert_files
from boxwright.weights.sources.deformable_detr import AuthorsDeformableDETR
from weights.compared import Recorder, name_version
from weights.released import find_file_of_page, read_image
from weights.released_values import DEFORMABLE_DETR, assert_values
from weights.sources.deformable_checks import SIZES, assert_detects_as, make_model

Replacement = str | Callable[[re.Match[str]], str]

RENAMES: list[tuple[str, Replacement]] = [
    (r"^model\.backbone\.model\.embedder\.embedder\.convolution", "backbone.0.body.conv1"),
    (r"^model\.backbone\.model\.embedder\.embedder\.normalization", "backbone.0.body.bn1"),
    (r"^model\.backbone\.model\.encoder\.stages\.(\d)\.layers", lambda m: f"backbone.0.body.layer{int(m[1]) + 1}"),
    (r"(body.*)\.layer\.(\d)\.convolution", lambda m: f"{m[1]}.conv{int(m[2]) + 1}"),
    (r"(body.*)\.layer\.(\d)\.normalization", lambda m: f"{m[1]}.bn{int(m[2]) + 1}"),
    (r"\.shortcut\.convolution", ".downsample.0"),
    (r"\.shortcut\.normalization", ".downsample.1"),
    (r"^model\.backbone\.model\.", "backbone.0.body."),
    (r"^model\.input_proj", "input_proj"),
    (r"^model\.query_position_embeddings", "query_embed"),
    (r"^model\.", "transformer."),
    (r"(encoder.*)\.self_attn_layer_norm", r"\1.norm1"),
    (r"(encoder.*)\.final_layer_norm", r"\1.norm2"),
    (r"(decoder.*)\.encoder_attn_layer_norm", r"\1.norm1"),
    (r"(decoder.*)\.self_attn_layer_norm", r"\1.norm2"),
    (r"(decoder.*)\.final_layer_norm", r"\1.norm3"),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.mlp\.fc", ".linear"),
    (r"(decoder.*self_attn)\.o_proj", r"\1.out_proj"),
]

ARGS = {
    "nheads": 4,
    "dropout": 0.1,
    "num_queries": SIZES["num_queries"],
    "dilation": False,
    "position_embedding": "sine",
    "dataset_file": "coco",
}


def rename(model: Any) -> dict[str, Tensor]:
    """Give the tensors of transformers' model the authors' names; copies of heads are among them."""
    named: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=False).items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        named[name] = tensor
    for name in [name for name in named if ".q_proj." in name]:
        parts = [named.pop(name.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
        named[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    return named


def make(variant: str) -> Any:
    return make_model(variant, encoder_attention_heads=4, decoder_attention_heads=4)


def save(tensors: dict[str, Tensor], path: Path, **args: Any) -> Path:
    torch.save({"model": tensors, "optimizer": {}, "epoch": 49, "args": Namespace(**{**ARGS, **args})}, path)
    return path


def notes_of(weights: ModelWeights) -> list[str]:
    """Notes but for those on the sizes that ``read`` changes, of which one is always there."""
    changed = "the weights come with another preprocessing, without which they find less: "
    changes = (
        "max_size 160 became 144: --input.max_size 160; size_rule detr became transformers: --input.size_rule detr"
    )
    assert weights.notes.count(changed + changes) == 1
    return [note for note in weights.notes if not note.startswith("input.") and note != changed + changes]


def read(path: Path, **overrides: Any) -> ModelWeights:
    # The model that is compared rounds sizes otherwise where the longest side binds.
    sizes = {"input.image_size": 96, "input.max_size": 144, "input.size_rule": "transformers"}
    return convert_files(read_source_files(path), {**sizes, **overrides})


@pytest.mark.parametrize("variant", ["base", "refine", "two-stage", "single-scale", "single-scale, dilated"])
def test_the_same_detections_and_the_same_names_written(
    variant: str, tmp_path: Path, record_comparison: Recorder
) -> None:
    model = make(variant)
    tensors = rename(model)
    weights = read(save(tensors, tmp_path / "checkpoint.pth", dilation="dilated" in variant))
    assert notes_of(weights) == ["the names of its 7 classes are not in its files: they are called class_0 and so on"]
    assert not weights.skipped
    detector = build_model(weights)
    largest = assert_detects_as(detector, model)
    project = f"{name_version('transformers')} under the authors' names"
    record_comparison("deformable_detr", variant, project, largest, inputs=detector.input_format)
    layout = AuthorsDeformableDETR().write(detector)
    assert layout.wrap == ("model",)
    assert set(layout.tensors) == set(tensors)
    for name, tensor in layout.tensors.items():
        assert tensor.equal(tensors[name]), name


@pytest.mark.parametrize(
    ("recipe", "num_tensors", "copies"),
    [
        ("deformable_detr_r50", 561, ["class_embed.5.bias", "bbox_embed.5.layers.2.bias"]),
        ("deformable_detr_r50_refine", 597, ["transformer.decoder.bbox_embed.5.layers.2.bias"]),
        ("deformable_detr_r50_two_stage", 630, ["transformer.decoder.class_embed.6.bias"]),
        ("deformable_detr_r50_single_scale", 549, ["class_embed.5.bias"]),
    ],
)
def test_tensors_at_released_size(recipe: str, num_tensors: int, copies: list[str]) -> None:
    """Counted once in models that the authors' code builds, whose names are all of these and no others."""
    with torch.device("meta"):
        detector = boxwright.build(recipe, num_classes=91)
    tensors = AuthorsDeformableDETR().write(detector).tensors
    assert len(tensors) == num_tensors
    assert set(copies) <= set(tensors)
    assert tensors["transformer.decoder.layers.5.self_attn.in_proj_weight"].shape == (768, 256)


def test_counts_of_operations_are_skipped(tmp_path: Path) -> None:
    tensors = rename(make("base"))
    names = ["total_ops", "transformer.total_params", "class_embed.0.total_ops", "input_proj.0.0.total_params"]
    weights = read(save({**tensors, **{name: torch.zeros(1) for name in names}}, tmp_path / "checkpoint.pth"))
    assert weights.skipped == dict.fromkeys(names, "a count of operations")


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("base", "class_embed.2.bias"),
        ("refine", "bbox_embed.1.layers.2.bias"),
        ("two-stage", "transformer.decoder.class_embed.3.bias"),
    ],
)
def test_copies_that_differ_are_an_error(variant: str, name: str, tmp_path: Path) -> None:
    tensors = rename(make(variant))
    tensors[name] = tensors[name] + 1
    with pytest.raises(ValueError, match=r"embed.*: copies of one tensor differ"):
        read(save(tensors, tmp_path / "checkpoint.pth"))


def test_a_file_without_arguments(tmp_path: Path) -> None:
    torch.save({"model": rename(make("single-scale"))}, tmp_path / "checkpoint.pth")
    assert notes_of(read(tmp_path / "checkpoint.pth")) == [
        "a dilated c5 leaves no trace in the weights: backbone.dilation is assumed to be none",
        "the number of heads is not in the weights: neck.num_heads 4 and neck.num_points 3 are assumed; the two have "
        "a product of 12",
        "the number of heads is not in the weights: head.decoder.num_heads 8 and head.decoder.num_points 1 are "
        "assumed; the two have a product of 8",
        "the names of its 7 classes are not in its files: they are called class_0 and so on",
    ]


def test_classes_of_the_released_files(tmp_path: Path) -> None:
    tensors = rename(make_model("base", num_labels=91))
    weights = read(save(tensors, tmp_path / "checkpoint.pth"))
    assert (weights.categories[17], weights.categories[75]) == (Category(17, "cat"), Category(75, "remote"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"position_embedding": "learned"}, "its positions are learned, and ours are sines"),
        ({"nheads": "many"}, "its nheads is 'many', and should be a number of at least 1"),
        ({"nheads": 3}, "num_heads"),
    ],
)
def test_arguments_without_a_counterpart(args: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(save(rename(make("base")), tmp_path / "checkpoint.pth", **args))


@pytest.mark.parametrize(
    "name",
    [
        "transformer.level_embed",
        "transformer.decoder.layers.0.cross_attn.attention_weights.weight",
        "transformer.reference_points.weight",
        "backbone.0.body.layer3.1.conv1.weight",
        "input_proj.0.0.weight",
    ],
)
@pytest.mark.parametrize("change", ["missing", "flat", "empty"])
def test_damaged_files_are_named_in_a_line(name: str, change: str, tmp_path: Path) -> None:
    tensors = rename(make("base"))
    tensor = tensors.pop(name)
    if change != "missing":
        tensors[name] = tensor.flatten() if change == "flat" else tensor[:0]
    with pytest.raises(ValueError, match=r"checkpoint.pth: [^\n]+$"):
        read(save(tensors, tmp_path / "checkpoint.pth"))


RELEASED = {
    "r50_deformable_detr-checkpoint.pth": "deformable-detr",
    "r50_deformable_detr_single_scale-checkpoint.pth": "deformable-detr-single-scale",
    "r50_deformable_detr_plus_iterative_bbox_refinement-checkpoint.pth": "deformable-detr-with-box-refine",
    "r50_deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage-checkpoint.pth": (
        "deformable-detr-with-box-refine-two-stage"
    ),
}
"""Files of the authors, and the names of the same weights on the hub."""


@pytest.mark.parametrize("name", RELEASED)
def test_golden_values_of_released_files(name: str) -> None:
    path = find_file_of_page(name, "https://github.com/fundamentalvision/Deformable-DETR#main-results")
    pixels = DeformableDetrImageProcessor()(images=read_image(), return_tensors="pt")["pixel_values"]
    assert_values(build_model(convert_files(read_source_files(path))), pixels, DEFORMABLE_DETR[RELEASED[name]])
