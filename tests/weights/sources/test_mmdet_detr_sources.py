"""DETR and Deformable DETR of mmdetection: its files through our door, beside its own detections.

The detections were made once by mmdetection 3.3.0 on mmcv-lite 2.1.0 and mmengine 0.10.7, from its own configurations
at small widths: a ResNet-18 of width 8, one or two layers, 20 queries. Images went through its own test pipeline, boxes
were cut to the image; only names, shapes, statistics of norms and detections are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, build_model, convert_files
from weights.compared import Recorder
from weights.source_checks import Differences, assert_same_detections, draw_images
from weights.sources.mmdet_files import make_file

DEFORMABLE = ["base", "refine", "two_stage"]


def read(content: dict[str, Any], folder: Path, **overrides: Any) -> ModelWeights:
    torch.save(content, folder / "epoch_50.pth")
    return convert_files(read_source_files(folder / "epoch_50.pth"), overrides)


@pytest.mark.parametrize("variant", ["detr", *DEFORMABLE])
def test_the_same_detections(variant: str, tmp_path: Path, record_comparison: Recorder) -> None:
    file = make_file(variant)
    weights = read(file.content, tmp_path)
    assert weights.notes == ()
    assert all(name.endswith("num_batches_tracked") for name in weights.skipped)
    assert [category.name for category in weights.categories] == ["ant", "bee", "cat", "dog", "eel", "fox"]
    detector, largest = build_model(weights), Differences(0.0, 0.0)
    for image, expected in zip(draw_images(), file.detections, strict=True):
        largest = largest.join(assert_same_detections(detector.predict(image), expected))
        assert expected.scores.std() > 0.01
    source, project = weights.origin.kind, "mmdetection 3.3.0, its detections stored"
    record_comparison(source, variant, project, largest, inputs=detector.input_format)


@pytest.mark.parametrize("variant", ["detr", *DEFORMABLE])
def test_preprocessing_of_the_configuration(variant: str, tmp_path: Path) -> None:
    file = make_file(variant)
    image = read(file.content, tmp_path).recipe.input
    assert (image.image_size, image.max_size, image.size_rule) == (96, 144, "mmcv")
    assert (image.antialias, image.resize_floats, image.pad_multiple) == (False, False, 1)
    assert (image.mean, image.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    file.content["meta"]["cfg"] = file.content["meta"]["cfg"].replace("bgr_to_rgb=True", "bgr_to_rgb=False")
    image = read(file.content, tmp_path).recipe.input
    assert image.channel_order == "bgr"
    assert image.mean == (0.406, 0.456, 0.485)


@pytest.mark.parametrize("variant", ["detr", *DEFORMABLE])
def test_a_file_without_a_configuration(variant: str, tmp_path: Path) -> None:
    content = {"state_dict": make_file(variant).tensors}
    weights = read(content, tmp_path)
    assert any("the file has no configuration" in note for note in weights.notes)
    assert any("the number of heads is not in the weights: neck.num_heads 8" in note for note in weights.notes)
    assert (weights.recipe.input.image_size, weights.recipe.input.pad_multiple) == (800, 1)
    options = weights.recipe.head.options
    if variant != "detr":
        assert (options["refine"], options["two_stage"]) == (variant != "base", variant == "two_stage")


@pytest.mark.parametrize(
    ("variant", "change", "message"),
    [
        ("base", ("style='pytorch'", "style='caffe'"), "model.backbone.style of its configuration is caffe"),
        ("base", ("type='ResNet'", "type='ResNeXt'"), "model.backbone.type of its configuration is ResNeXt"),
        ("base", ("num_heads=4", "num_heads='four'"), "its num_heads is 'four', and should be a number"),
        ("detr", ("normalize=True", "normalize=False"), "model.positional_encoding.normalize of its configuration"),
    ],
)
def test_configurations_without_a_counterpart(
    variant: str, change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    content = make_file(variant).content
    assert change[0] in content["meta"]["cfg"]
    content["meta"]["cfg"] = content["meta"]["cfg"].replace(*change)
    with pytest.raises(ValueError, match=message):
        read(content, tmp_path)


@pytest.mark.parametrize(
    ("variant", "name", "message"),
    [
        ("base", "bbox_head.cls_branches.1.bias", "bbox_head.cls_branches.0.bias: copies of one tensor differ"),
        ("base", "neck.extra.weight", "neck.extra.weight is unknown"),
        ("detr", "decoder.query_scale.weight", "decoder.query_scale.weight is unknown"),
    ],
)
def test_tensors_that_do_not_fit_are_named(variant: str, name: str, message: str, tmp_path: Path) -> None:
    file = make_file(variant)
    file.tensors[name] = torch.ones(file.tensors.get(name, torch.ones(6)).shape)
    with pytest.raises(ValueError, match=message):
        read(file.content, tmp_path)


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("detr", "bbox_head.fc_cls.weight"),
        ("detr", "backbone.conv1.weight"),
        ("detr", "query_embedding.weight"),
        ("base", "level_embed"),
        ("base", "bbox_head.cls_branches.0.weight"),
        ("two_stage", "encoder.layers.0.ffn.layers.0.0.weight"),
    ],
)
@pytest.mark.parametrize("change", ["missing", "flat", "empty"])
def test_damaged_files_are_named_in_a_line(variant: str, name: str, change: str, tmp_path: Path) -> None:
    file = make_file(variant)
    tensor = file.tensors.pop(name)
    if change != "missing":
        file.tensors[name] = tensor.flatten() if change == "flat" else tensor[:0]
    with pytest.raises(ValueError, match=r"epoch_50.pth: [^\n]+$"):
        read(file.content, tmp_path)
