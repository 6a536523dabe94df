"""Deformable DETR of transformers: its own files through our door, and ours through its door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeformableDetrForObjectDetection, DeformableDetrImageProcessor

import boxwright
from boxwright.detector import Detector
from boxwright.structures import Category
from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, build_model, convert_files
from boxwright.weights.sources.hf_deformable_detr import HuggingFaceDeformableDETR
from weights.compared import Recorder, name_version
from weights.released import find_hub_folder, read_image
from weights.released_values import DEFORMABLE_DETR, assert_values
from weights.source_checks import SHAPES, draw_images
from weights.sources.deformable_checks import PROCESSOR, VARIANTS, assert_detects_as, make_model, make_released
from weights.transformers_models import compare_outputs

UNTIED = {"tie_word_embeddings": False}


def save(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return dict(load_file(folder / "model.safetensors"))


def read(folder: Path, **overrides: Any) -> ModelWeights:
    return convert_files(read_source_files(folder), overrides)


def change_json(path: Path, **changes: Any) -> None:
    """Set entries; those that are None are taken out."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_detections(variant: str, tmp_path: Path, record_comparison: Recorder) -> None:
    model = make_model(variant)
    save(model, tmp_path)
    weights = read(tmp_path)
    assert not weights.skipped
    assert [note for note in weights.notes if not note.startswith("backbone: resnet was replaced")] == [
        "the names of its 7 classes are not in its files: they are called LABEL_0 and so on"
    ]
    largest = assert_detects_as(build_model(weights), model)
    record_comparison("hf_deformable_detr", variant, name_version("transformers"), largest, inputs=weights.recipe.input)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "num_tensors"), [("base", 545), ("two-stage", 598), ("single-scale, dilated", 533)]
)
def test_names_of_released_size(variant: str, num_tensors: int, tmp_path: Path) -> None:
    model = make_released(variant, residual_gain=1.0)
    assert len(save(model, tmp_path)) == num_tensors
    weights = read(tmp_path)
    assert not weights.skipped
    assert weights.recipe.backbone.options["dilation"] == ("after_first" if "dilated" in variant else "none")


def test_classes_and_preprocessing_of_the_files(tmp_path: Path) -> None:
    names = ["N/A", "cat", "N/A", "dog"]
    model = make_model("base", num_labels=4, id2label=dict(enumerate(names)))
    save(model, tmp_path)
    DeformableDetrImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 80}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    ).save_pretrained(tmp_path)
    weights = read(tmp_path)
    assert weights.notes == ()
    assert weights.categories == tuple(Category(i, name) for i, name in enumerate(names))
    image = weights.recipe.input
    assert (image.image_size, image.max_size, image.resize, image.size_rule) == (
        64,
        80,
        "shortest_side",
        "transformers",
    )
    assert (image.mean, image.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def test_a_head_that_all_layers_share_although_they_refine(tmp_path: Path) -> None:
    """transformers 5 makes one class head of those of all layers unless it is told otherwise."""
    model = make_model("refine", tie_word_embeddings=True)
    stored = save(model, tmp_path)
    assert "class_embed.1.weight" not in stored
    weights = read(tmp_path)
    assert weights.tensors["head.classes.2.weight"].equal(stored["class_embed.0.weight"])
    assert_detects_as(build_model(weights), model)


def test_without_refinement_only_the_head_of_the_last_layer_predicts(tmp_path: Path) -> None:
    model = make_model("base", **UNTIED)
    save(model, tmp_path)
    weights = read(tmp_path)
    assert set(weights.skipped.values()) == {"the head of a layer before the last, which predicts nothing"}
    assert len(weights.skipped) == 2 * (2 + 6)
    assert_detects_as(build_model(weights), model)


@pytest.mark.parametrize("variant", ["base", "refine", "two-stage"])
def test_copies_of_heads_in_older_files(variant: str, tmp_path: Path) -> None:
    """Six names of one tensor in a file of torch's own format, and the entries of older configurations."""
    model = make_model(variant)
    stored = save(model, tmp_path)
    for name in [name for name in stored if variant == "base" and "_embed.0" in name]:
        stored |= {name.replace("_embed.0", f"_embed.{i}"): stored[name] for i in range(3)}
    torch.save(stored, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    change_json(tmp_path / "config.json", tie_word_embeddings=None, id2label={"0": "cat"})
    change_json(tmp_path / "preprocessor_config.json", size=96, max_size=144, do_rescale=None, rescale_factor=None)
    weights = read(tmp_path)
    assert not weights.skipped
    assert_detects_as(build_model(weights), model)


def test_older_entries_of_a_backbone(tmp_path: Path) -> None:
    model = make_model("single-scale, dilated")
    save(model, tmp_path)
    older = {"backbone": "resnet18", "use_timm_backbone": True, "dilation": True}
    change_json(tmp_path / "config.json", backbone_config=None, **older)
    assert read(tmp_path).recipe.backbone.options["dilation"] == "after_first"
    change_json(tmp_path / "config.json", dilation=False)
    assert read(tmp_path).recipe.backbone.options["dilation"] == "none"


def test_copies_that_differ_are_an_error(tmp_path: Path) -> None:
    stored = save(make_model("refine"), tmp_path)
    name = "bbox_embed.1.layers.0.bias"
    stored |= {name: torch.zeros(64), f"model.decoder.{name}": torch.ones(64)}
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"bbox_embed.1.layers.0.bias: copies of one tensor differ"):
        read(tmp_path)


def test_the_weights_alone(tmp_path: Path) -> None:
    """Structure is read from the tensors; what they do not tell is assumed, said, and can be overridden."""
    model = make_model("two-stage")
    save(model, tmp_path / "whole")
    bare = tmp_path / "model.safetensors"
    bare.write_bytes((tmp_path / "whole" / "model.safetensors").read_bytes())
    weights = read(bare)
    assert weights.notes[:3] == (
        "queries from the encoder leave no trace in the weights: head.num_queries is 300",
        "the number of heads is not in the weights: neck.num_heads 4 and neck.num_points 3 are assumed; the two have "
        "a product of 12",
        "the number of heads is not in the weights: head.decoder.num_heads 4 and head.decoder.num_points 1 are "
        "assumed; the two have a product of 4",
    )
    assert weights.notes[3] == "the names of its 7 classes are not in its files: they are called class_0 and so on"
    assert weights.notes[4].startswith("no preprocessor_config.json")
    overrides = {"head.num_queries": 30, "head.decoder.num_heads": 2, "head.decoder.num_points": 2}
    overrides |= {"input.image_size": 96, "input.max_size": 144}
    assert_detects_as(build_model(read(bare, **overrides)), model)


@pytest.mark.parametrize("variant", ["base", "refine", "two-stage"])
def test_the_weights_alone_tell_the_variant(variant: str, tmp_path: Path) -> None:
    save(make_model(variant), tmp_path)
    options = read(tmp_path / "model.safetensors").recipe.head.options
    assert (options["refine"], options["two_stage"]) == (variant != "base", variant == "two-stage")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "learned"}, "its position_embedding_type is learned, and ours is sine"),
        ({"activation_function": "gelu"}, "its activation_function is gelu, and ours is relu"),
        ({"with_box_refine": False}, "queries from the encoder without refinement of boxes have no counterpart here"),
    ],
)
def test_forms_without_a_counterpart(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(make_model("two-stage"), tmp_path)
    change_json(tmp_path / "config.json", **changes)
    with pytest.raises(ValueError, match=f"{tmp_path}: {message}"):
        read(tmp_path)


def test_widths_whose_group_norms_are_others(tmp_path: Path) -> None:
    save(make_model("base", d_model=32), tmp_path)
    with pytest.raises(ValueError, match="its tokens have 32 channels; here their group norms need a multiple of 64"):
        read(tmp_path)


def write(detector: Detector, folder: Path) -> dict[str, torch.Tensor]:
    layout = HuggingFaceDeformableDETR().write(detector)
    save_file(dict(layout.tensors), folder / layout.file_name)
    for name, content in layout.files.items():
        (folder / name).write_text(json.dumps(content))
    return dict(layout.tensors)


@pytest.mark.parametrize(
    "variant", ["base", "refine", "two-stage", "six levels", "single-scale", "single-scale, dilated"]
)
@torch.no_grad()
def test_transformers_reads_what_we_write(variant: str, tmp_path: Path, record_comparison: Recorder) -> None:
    save(make_model(variant), tmp_path)
    detector = build_model(read(tmp_path))
    written = write(detector, tmp_path)
    model, info = DeformableDetrForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    again = build_model(read(tmp_path))
    assert set(again.state_dict()) == set(detector.state_dict())
    for name, tensor in detector.state_dict().items():
        assert tensor.equal(again.state_dict()[name]), name
    assert len(written) > 200
    assert_detects_as(again, model, DeformableDetrImageProcessor.from_pretrained(tmp_path))
    pixels = PROCESSOR(images=draw_images()[0], return_tensors="pt")["pixel_values"]
    ours, theirs = detector(pixels), model.eval()(pixels)
    assert theirs.logits.std(1).mean() > 0.05
    largest = compare_outputs(ours, theirs)
    project = name_version("transformers")
    record_comparison("hf_deformable_detr", f"{variant}, written", project, largest, images=SHAPES[:1])


def test_trained_norms_are_written_without_their_counters(tmp_path: Path) -> None:
    overrides = {"backbone.norm": "batch", "backbone.frozen_stages": 0, "backbone.width": 8, "backbone.depth": 18}
    overrides |= {"neck.num_layers": 1, "head.decoder.num_layers": 1}
    detector = boxwright.build("deformable_detr_r50", num_classes=3, overrides=overrides)
    assert not any("num_batches_tracked" in name for name in write(detector, tmp_path))
    assert [category.name for category in read(tmp_path).categories] == ["class_0", "class_1", "class_2"]


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("detr_r50", {}, "this detector has resnet, detr_encoder, detr"),
        ("deformable_detr_r50_bifpn", {}, "this detector has resnet, bifpn, deformable_encoder, deformable_detr"),
        ("deformable_detr_r50", {"neck.hidden_dim": 64}, "neck.hidden_dim 64 and head.hidden_dim 256"),
        ("deformable_detr_r50", {"neck.num_points": [4, 4, 2, 2]}, r"this detector has \[4, 4, 2, 2\]"),
        (
            "deformable_detr_r50_single_scale_dc5",
            {"backbone.width": 8},
            "a dilated ResNet of timm's depths and width 64",
        ),
        ("deformable_detr_r50_single_scale_dc5", {"backbone.dilation": "all"}, "this detector has 1e-05 and all"),
        ("deformable_detr_r50", {"backbone.norm_eps": 0.001}, "this detector has 0.001 and none"),
        ("deformable_detr_r50", {"neck.across_levels": False}, "neck.across_levels is False, and has to be True there"),
        (
            "deformable_detr_r50",
            {"backbone.block.squeeze_excitation": "convolutions"},
            "backbone.block.squeeze_excitation is all, and has to be none there",
        ),
    ],
)
def test_detectors_without_a_counterpart(recipe: str, overrides: dict[str, Any], message: str) -> None:
    with torch.device("meta"):
        detector = boxwright.build(recipe, num_classes=3, overrides=overrides)
    with pytest.raises(ValueError, match=message):
        HuggingFaceDeformableDETR().write(detector)


@pytest.mark.parametrize("name", DEFORMABLE_DETR)
def test_golden_values_of_released_files(name: str) -> None:
    folder, image = find_hub_folder(f"SenseTime/{name}"), read_image()
    detector = build_model(read(folder))
    pixels = DeformableDetrImageProcessor.from_pretrained(folder)(images=image, return_tensors="pt")["pixel_values"]
    assert_values(detector, pixels, DEFORMABLE_DETR[name])
    if name == "deformable-detr":
        best = detector.predict(image)[:5]
        scores = torch.tensor([0.7999, 0.7895, 0.6332, 0.4719, 0.4382])
        torch.testing.assert_close(best.scores, scores, rtol=0, atol=1e-3)
        assert best.labels.tolist() == [17, 17, 75, 75, 63]
        box = torch.tensor([16.4960, 52.8387, 318.2565, 470.7831])
        torch.testing.assert_close(best.boxes[0], box, rtol=0, atol=0.1)
