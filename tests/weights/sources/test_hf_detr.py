"""DETR and Table Transformer of transformers: its own files through our door, and ours through its door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DetrForSegmentation,
    DetrImageProcessor,
    ResNetConfig,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
)

import boxwright
from boxwright.passport import Origin
from boxwright.weights.model import build_model, convert_files
from boxwright.weights.source import SourceFiles
from weights.compared import Recorder, name_version
from weights.released import find_hub_folder, read_image
from weights.released_values import DETR_R50, assert_values
from weights.transformers_models import assert_equal_detections, calibrate, read, write_folder

SMALL = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "num_queries": 15,
    "num_labels": 6,
}
SIZE = {"shortest_edge": 96, "longest_edge": 144}


def own_resnet(layer_type: str = "bottleneck", out_features: Sequence[str] = ("stage4",)) -> ResNetConfig:
    width = 8
    widest = width * (4 if layer_type == "bottleneck" else 1)
    return ResNetConfig(
        depths=[3, 4, 6, 3] if layer_type == "bottleneck" else [2, 2, 2, 2],
        hidden_sizes=[widest * 2**i for i in range(4)],
        embedding_size=width,
        layer_type=layer_type,
        out_features=list(out_features),
    )


def make(kind: str) -> Any:
    """A small model of each kind, calibrated."""
    torch.manual_seed(0)
    if kind == "own":
        model = DetrForObjectDetection(DetrConfig(backbone_config=own_resnet(), **SMALL))
    elif kind == "own r18, learned positions":
        config = DetrConfig(backbone_config=own_resnet("basic"), position_embedding_type="learned", **SMALL)
        model = DetrForObjectDetection(config)
    elif kind == "timm r18":
        model = DetrForObjectDetection(DetrConfig(backbone="resnet18", **SMALL))
    elif kind == "timm r18d":
        model = DetrForObjectDetection(DetrConfig(backbone="resnet18d", **SMALL))
    elif kind == "timm r18, dilated":
        model = DetrForObjectDetection(DetrConfig(backbone="resnet18", dilation=True, **SMALL))
    elif kind == "table":
        model = TableTransformerForObjectDetection(TableTransformerConfig(backbone_config=own_resnet("basic"), **SMALL))
    else:
        assert kind == "panoptic"
        backbone = own_resnet(out_features=["stage1", "stage2", "stage3", "stage4"])
        sizes = {**SMALL, "d_model": 64, "encoder_attention_heads": 8}
        model = DetrForSegmentation(DetrConfig(backbone_config=backbone, **sizes))
    calibrate(model)
    return model.eval()


KINDS = ["own", "own r18, learned positions", "timm r18, dilated", "table", "panoptic"]
SLOW = ["timm r18", "timm r18d"]


@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_detections_of_what_save_pretrained_writes(kind: str, tmp_path: Path, record_comparison: Recorder) -> None:
    model, processor = make(kind), DetrImageProcessor(size=SIZE)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = read(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    masks = {name for name in names if name.startswith(("mask_head.", "bbox_attention."))}
    assert set(weights.skipped) == masks
    assert bool(masks) == (kind == "panoptic")
    assert [category.name for category in weights.categories] == [f"LABEL_{i}" for i in range(6)]
    assert "the names of its 6 classes are not in its files" in " ".join(weights.notes)
    largest = assert_equal_detections(build_model(weights), model, processor)
    record_comparison("hf_detr", kind, name_version("transformers"), largest, inputs=weights.recipe.input)


OLDER_CONFIG = {
    "model_type": "detr",
    "backbone": "resnet18",
    "backbone_config": None,
    "use_timm_backbone": True,
    "use_pretrained_backbone": True,
    "dilation": False,
    "scale_embedding": False,
    "max_position_embeddings": 1024,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "id2label": {"0": "N/A", "1": "person", "2": "N/A", "3": "cat", "4": "N/A", "5": "N/A"},
}
OLDER_PROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "DetrFeatureExtractor",
    "format": "coco_detection",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "max_size": 144,
    "size": 96,
}


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Tensor]]:
    """A model on timm's ResNet, and its tensors as transformers names them on disk."""
    model, folder = make("timm r18"), tmp_path_factory.mktemp("older")
    model.save_pretrained(folder)
    return model, load_file(folder / "model.safetensors")


@pytest.mark.parametrize("prefix", ["", "_backbone."])
def test_older_files(prefix: str, older: tuple[Any, dict[str, Tensor]], tmp_path: Path) -> None:
    model, before = older[0], "model.backbone.conv_encoder.model."
    tensors = {name.replace(before, before + prefix): tensor for name, tensor in older[1].items()}
    tensors[f"{before}{prefix}bn1.num_batches_tracked"] = torch.tensor(7)
    write_folder(tmp_path, tensors, OLDER_CONFIG, OLDER_PROCESSOR)
    weights = read(tmp_path)
    assert [category.name for category in weights.categories] == ["N/A", "person", "N/A", "cat", "N/A", "N/A"]
    assert weights.notes == ()
    assert list(weights.skipped) == [f"{before}{prefix}bn1.num_batches_tracked"]
    assert_equal_detections(build_model(weights), model, DetrImageProcessor(size=SIZE))


def test_weights_alone_say_what_is_assumed(tmp_path: Path) -> None:
    model = make("own")
    model.save_pretrained(tmp_path / "whole")
    path = tmp_path / "model.safetensors"
    path.write_bytes((tmp_path / "whole" / "model.safetensors").read_bytes())
    heads = {"neck.num_heads": 4, "head.decoder.num_heads": 2}
    weights = read(path, **heads, **{"input.image_size": 96, "input.max_size": 144})
    assert [note.partition(":")[0] for note in weights.notes] == [
        "no config.json",
        "the names of its 6 classes are not in its files",
        "no preprocessor_config.json",
        "the weights come with another preprocessing, without which they find less",
    ]
    assert read(path).recipe.input.image_size == 800
    assert_equal_detections(build_model(weights), model, DetrImageProcessor(size=SIZE))


def test_names_that_transformers_has_in_memory(tmp_path: Path) -> None:
    model = make("own")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert "model.encoder.layers.0.mlp.fc1.weight" in model.state_dict()
    heads = {"neck.num_heads": 4, "head.decoder.num_heads": 2}
    weights = read(tmp_path / "model.pth", **heads)
    assert weights.skipped == {}
    model.save_pretrained(tmp_path)
    again = read(tmp_path)
    assert weights.tensors.keys() == again.tensors.keys()
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in weights.tensors.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "conditional_detr"}, "Conditional DETR"),
        ({"activation_function": "gelu"}, "activation_function gelu"),
        ({"num_channels": 4}, "images of 4 channels"),
        ({"backbone": "tf_efficientnet_b0"}, "tf_efficientnet_b0, whose norms"),
        ({"backbone_config": {"out_indices": [1, 2, 3], "backbone": "resnet18"}}, "last map is number 3"),
        ({"backbone_config": {"output_stride": 8, "backbone": "resnet18"}}, "output_stride 8"),
    ],
)
def test_variants_without_a_counterpart(
    change: Mapping[str, Any], message: str, older: tuple[Any, dict[str, Tensor]]
) -> None:
    files = SourceFiles(origin=Origin(source="folder", kind=""), tensors=older[1], config={**OLDER_CONFIG, **change})
    with pytest.raises(ValueError, match=message) as error:
        convert_files(files)
    assert "\n" not in str(error.value)


def test_conditional_detr_is_refused(tmp_path: Path) -> None:
    small = {key: value for key, value in SMALL.items() if "heads" not in key}
    config = ConditionalDetrConfig(backbone_config=own_resnet(), use_timm_backbone=False, **small)
    ConditionalDetrForObjectDetection(config).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="Conditional DETR, whose attentions Boxwright does not have"):
        read(tmp_path)


def test_own_resnets_of_another_form_are_refused(tmp_path: Path) -> None:
    model = make("own")
    model.config.backbone_config.downsample_in_bottleneck = True
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="downsample_in_bottleneck True"):
        read(tmp_path)


def on_disk(name: str) -> str:
    """The name on disk of one in memory, as transformers 5 renames them."""
    for memory, disk in (("model.backbone.model.", "model.backbone.conv_encoder.model."), ("o_proj", "out_proj")):
        name = name.replace(memory, disk)
    return name.replace(".mlp.fc", ".fc")


@pytest.mark.parametrize(
    ("kind", "count", "recipe"),
    [
        ("detr", 530, "detr_r50"),
        ("dc5", 530, "detr_r50_dc5"),
        pytest.param("r101", 785, "detr_r101", marks=pytest.mark.slow),
        ("table", 367, ""),
    ],
)
def test_names_and_shapes_of_released_sizes(kind: str, count: int, recipe: str) -> None:
    with torch.device("meta"):
        if kind == "table":
            config: Any = TableTransformerConfig(backbone="resnet18", num_queries=15, num_labels=2)
            model: Any = TableTransformerForObjectDetection(config)
        else:
            config = DetrConfig(
                dilation=kind == "dc5", backbone=f"resnet{101 if kind == 'r101' else 50}", num_labels=91
            )
            model = DetrForObjectDetection(config)
    tensors = {on_disk(name): tensor for name, tensor in model.state_dict().items()}
    assert len(tensors) == count
    origin = Origin(source="model.safetensors", kind="")
    weights = convert_files(SourceFiles(origin=origin, tensors=tensors, config=config.to_dict()))
    assert not weights.skipped
    expected = boxwright.compose.recipes.resolve(recipe or "table_transformer").recipe
    assert weights.recipe.backbone == expected.backbone
    assert weights.recipe.necks == expected.necks
    assert weights.recipe.head == expected.head


def test_golden_values_of_detr_r50() -> None:
    """Published by transformers' own tests."""
    folder, image = find_hub_folder("facebook/detr-resnet-50"), read_image()
    detector = build_model(read(folder))
    result = detector.predict(image)[:5]
    assert result.labels.tolist() == [17, 17, 75, 75, 63]
    torch.testing.assert_close(result.scores, torch.tensor([0.9988, 0.9987, 0.9982, 0.9960, 0.9955]), rtol=0, atol=2e-4)
    box = torch.tensor([40.1615, 70.8090, 175.5476, 117.9810])
    torch.testing.assert_close(result.boxes[2], box, rtol=0, atol=0.05)
    pixels = AutoImageProcessor.from_pretrained(folder)(images=image, return_tensors="pt")["pixel_values"]
    assert_values(detector, pixels, DETR_R50)


def test_golden_values_of_table_transformer() -> None:
    """Published by transformers' own tests, of a page that stands on the hub."""
    folder = find_hub_folder("microsoft/table-transformer-detection")
    page = try_to_load_from_cache("nielsr/example-pdf", "example_pdf.png", repo_type="dataset")
    if not isinstance(page, str):
        pytest.skip(
            "the page is not in the cache: `hf download nielsr/example-pdf example_pdf.png --repo-type dataset`"
        )
    detector, processor = build_model(read(folder)), AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=Image.open(page).convert("RGB"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = detector(pixels)
    logits, boxes = output.logits[-1, 0, 0], output.boxes_cxcywh_norm[-1, 0, 0]
    torch.testing.assert_close(logits, torch.tensor([-6.7329, -16.9590, 6.7447]), rtol=0, atol=2e-3)
    torch.testing.assert_close(boxes[:3], torch.tensor([0.4868, 0.1764, 0.6729]), rtol=0, atol=1e-3)
