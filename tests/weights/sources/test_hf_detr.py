"""DETR and Table Transformer of transformers: its own files through our door, and ours through its door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrForSegmentation,
    DetrImageProcessor,
    ResNetConfig,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
)

from boxwright.detector import Detector
from boxwright.weights.files import read_source_files
from boxwright.weights.model import ModelWeights, build_model, convert_files
from weights.source_checks import Expected, assert_same_detections, draw_images

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


def own_resnet(layer_type: str = "bottleneck", width: int = 8) -> ResNetConfig:
    widest = width * (4 if layer_type == "bottleneck" else 1)
    return ResNetConfig(
        depths=[3, 4, 6, 3] if layer_type == "bottleneck" else [2, 2, 2, 2],
        hidden_sizes=[widest * 2**i for i in range(4)],
        embedding_size=width,
        layer_type=layer_type,
        out_features=["stage4"],
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
    elif kind == "timm r26d":
        model = DetrForObjectDetection(DetrConfig(backbone="resnet26d", **SMALL))
    elif kind == "timm r50, dilated":
        model = DetrForObjectDetection(DetrConfig(dilation=True, **SMALL))
    elif kind == "table":
        model = TableTransformerForObjectDetection(TableTransformerConfig(backbone_config=own_resnet("basic"), **SMALL))
    else:
        assert kind == "panoptic"
        model = DetrForSegmentation(DetrConfig(**{**SMALL, "d_model": 128, "encoder_attention_heads": 8}))
    calibrate(model)
    return model.eval()


@torch.no_grad()
def calibrate(model: nn.Module) -> None:
    """Draw weights that tell images and queries apart, and give the frozen norms the statistics of an image."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "query_position" in name or "_embeddings" in name:
            parameter.normal_(0, 2, generator=generator)
        elif parameter.ndim > 1:
            gain = 2.0 if parameter.ndim == 4 else 1.5
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            parameter.uniform_(0.5, 1.0, generator=generator)
        else:
            parameter.normal_(0, 0.1, generator=generator)
    norms = [module for module in model.modules() if hasattr(module, "running_var")]
    for norm in norms:
        norm.weight.uniform_(0.3, 0.8, generator=generator)
        norm.bias.normal_(0, 0.1, generator=generator)
        norm.register_forward_pre_hook(take_statistics)
    pixels = torch.from_numpy(draw_images()[0]).permute(2, 0, 1)[None].float() / 127 - 1
    model.eval()(pixel_values=pixels)
    for norm in norms:
        norm._forward_pre_hooks.clear()


def take_statistics(norm: Any, inputs: tuple[Tensor, ...]) -> None:
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3)))


def read(folder: Path, **overrides: Any) -> ModelWeights:
    return convert_files(read_source_files(folder), overrides)


@torch.no_grad()
def expect(model: Any, processor: Any, image: NDArray[np.uint8]) -> Expected:
    """Detections of transformers, cut to the image."""
    height, width = image.shape[:2]
    output = model(**processor(images=image, return_tensors="pt"))
    (result,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(height, width)])
    limit = torch.tensor([width, height, width, height])
    return Expected(result["scores"], result["labels"], result["boxes"].clamp(min=0).minimum(limit))


def assert_equal_detections(ours: Detector, model: Any, processor: Any) -> None:
    scores = []
    for image in draw_images():
        expected = expect(model, processor, image)
        assert_same_detections(ours.predict(image), expected)
        scores.append(expected.scores)
    assert torch.cat(scores).std() > 0.02, "scores that are all alike compare nothing"


@pytest.mark.parametrize(
    "kind",
    ["own", "own r18, learned positions", "timm r18", "timm r26d", "timm r50, dilated", "table", "panoptic"],
)
def test_detections_of_what_save_pretrained_writes(kind: str, tmp_path: Path) -> None:
    model, processor = make(kind), DetrImageProcessor(size=SIZE)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = read(tmp_path)
    masks = {name for name in load_file(tmp_path / "model.safetensors") if "mask_head" in name or "_attention." in name}
    assert {name for name in weights.skipped if "num_batches" not in name} == masks
    assert bool(masks) == (kind == "panoptic")
    assert [category.name for category in weights.categories] == [f"LABEL_{i}" for i in range(6)]
    assert_equal_detections(build_model(weights), model, processor)
