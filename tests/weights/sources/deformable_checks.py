"""Small Deformable DETRs of transformers, and the comparison of their detections with ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DeformableDetrImageProcessor,
    ResNetConfig,
)

from boxwright.detector import Detector
from weights.source_checks import Differences, Expected, assert_same_detections, draw_images
from weights.transformers_models import LAST_NORMS

SIZES = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 80,
    "encoder_n_points": 3,
    "decoder_n_points": 2,
    "num_queries": 30,
    "two_stage_num_proposals": 30,
    "num_labels": 7,
}

PROCESSOR = DeformableDetrImageProcessor(size={"shortest_edge": 96, "longest_edge": 144})
"""The shape of the last image of ``draw_images`` is beyond this limit."""

REFINE = {"with_box_refine": True, "tie_word_embeddings": False}

VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "refine": REFINE,
    "two-stage": {**REFINE, "two_stage": True},
    "single-scale": {"num_feature_levels": 1},
    "six levels": {"num_feature_levels": 6, "two_stage": True, **REFINE},
    "timm": {"backbone": "resnet18"},
    "timm, another kind": {"backbone": "resnet26d", "num_feature_levels": 3},
    "single-scale, dilated": {"backbone": "resnet18", "num_feature_levels": 1, "dilation": True},
}


RELEASED = {
    "d_model": 256,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "num_queries": 300,
    "num_labels": 91,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "two_stage_num_proposals": 300,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
    "encoder_n_points": 4,
    "decoder_n_points": 4,
}


def make_released(variant: str, *, residual_gain: float) -> DeformableDetrForObjectDetection:
    """Build a model as large as those that were released; ``residual_gain`` as of ``calibrate``."""
    processor = DeformableDetrImageProcessor(size={"shortest_edge": 160, "longest_edge": 320})  # 300 cells at least
    return make_model(variant, residual_gain=residual_gain, processor=processor, backbone="resnet50", **RELEASED)


def make_model(
    variant: str, *, residual_gain: float = 1.0, processor: Any = None, **options: Any
) -> DeformableDetrForObjectDetection:
    """Build a model, by default a small one, with weights that tell images and queries apart."""
    options = {**SIZES, **VARIANTS[variant], **options}
    if "timm" not in variant and "dilated" not in variant and "backbone" not in options:
        stages = ["stage4"] if options.get("num_feature_levels") == 1 else ["stage2", "stage3", "stage4"]
        sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [8, 16, 32, 64], "embedding_size": 8, "layer_type": "basic"}
        options["backbone_config"] = ResNetConfig(**sizes, out_features=stages)
    model = DeformableDetrForObjectDetection(DeformableDetrConfig(**options))
    # Two names of one head, as in the authors' code, where transformers makes copies that training parts.
    if model.config.with_box_refine:
        model.model.decoder.bbox_embed = model.bbox_embed
    if model.config.two_stage:
        model.model.decoder.class_embed = model.class_embed
    calibrate_model(model.eval(), residual_gain, processor or PROCESSOR)
    return model


@torch.no_grad()
def calibrate_model(model: torch.nn.Module, residual_gain: float = 1.0, processor: Any = PROCESSOR) -> None:
    """Draw weights of the usual size, and give the frozen norms the statistics of an image."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith(("query_position_embeddings.weight", "level_embed")):
            parameter.normal_(0, 1, generator=generator)
        elif parameter.ndim > 1:
            gain = 2.0 if parameter.ndim == 4 else 1.0
            # Features of random weights change from cell to cell: samples that jump multiply float32's rounding.
            if "sampling_offsets" in name or ("bbox_embed" in name and "layers.2" in name):
                gain = 0.05
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            parameter.uniform_(0.5, 1.0, generator=generator)
        elif "sampling_offsets" not in name:
            parameter.normal_(0, 0.1, generator=generator)
    for name, module in model.named_modules():
        if LAST_NORMS.search(name):
            module.weight.mul_(residual_gain)
    norms = [module for module in model.modules() if isinstance(getattr(module, "running_var", None), Tensor)]
    hooks = [norm.register_forward_pre_hook(_take_statistics) for norm in norms]
    model(**processor(images=draw_images()[0], return_tensors="pt"))
    for hook in hooks:
        hook.remove()


def _take_statistics(norm: Any, inputs: tuple[Tensor, ...]) -> None:
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3)))


@torch.no_grad()
def expect_detections(model: Any, image: NDArray[np.uint8], processor: Any = PROCESSOR) -> Expected:
    """Detect with transformers' own processor and post-processing; boxes are cut to the image."""
    height, width = image.shape[:2]
    output = model(**processor(images=image, return_tensors="pt"))
    (best,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(height, width)])
    limit = torch.tensor([width, height, width, height])
    return Expected(best["scores"], best["labels"], best["boxes"].clamp(min=0).minimum(limit))


def assert_detects_as(ours: Detector, model: Any, processor: Any = PROCESSOR) -> Differences:
    """Make sure that ours and theirs detect the same in images of three shapes; return the largest differences."""
    largest, scores = Differences(0.0, 0.0), []
    for image in draw_images():
        expected = expect_detections(model, image, processor)
        largest = largest.join(assert_same_detections(ours.predict(image), expected))
        scores.append(expected.scores)
    assert torch.cat(scores).std() > 0.01, "scores that are all alike compare nothing"
    return largest
