"""Faults of other projects that docs/proven.md names, each shown by their own code; see there for what holds here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import (
    Deimv2Config,
    Deimv2ForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    HGNetV2Config,
)

from boxwright.weights.projects.huggingface_hgnet import write_hgnet_config

RELEASE = "5.24.0"
"""Release of transformers whose faults these are."""

LAYERS = 4
SMALL: dict[str, Any] = {
    "encoder_in_channels": [512, 1024],
    "num_feature_levels": 2,
    "feat_strides": [16, 32],
    "encode_proj_layers": [1],
    "decoder_in_channels": [64, 64],
    "encoder_hidden_dim": 64,
    "encoder_ffn_dim": 48,
    "depth_mult": 1 / 3,
    "decoder_layers": LAYERS,
    "decoder_ffn_dim": 64,
    "decoder_n_points": [6, 6],
    "d_model": 64,
    "num_queries": 20,
    "num_labels": 6,
    "num_denoising": 0,
}


def make(kind: str) -> Any:
    """Make a small model with weights that tell queries apart."""
    parts = write_hgnet_config("hgnetv2_b0", ["c4", "c5"], has_affine=True)
    backbone = HGNetV2Config(**{name: x for name, x in parts.items() if name not in ("model_type", "out_features")})
    config, model = {
        "D-FINE": (DFineConfig, DFineForObjectDetection),
        "DEIMv2": (Deimv2Config, Deimv2ForObjectDetection),
    }[kind]
    torch.manual_seed(0)
    built = model(config(backbone_config=backbone, **SMALL))
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.ndim > 1 and "embed" in name:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return built.train()


def run(model: Any) -> tuple[Any, list[float]]:
    """Train one step on two images; return the outputs, and the norm of the gradient of each layer's classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 96, 128, generator=generator)
    boxes = torch.rand(2, 3, 4, generator=generator) * 0.3 + 0.2
    labels = [{"class_labels": torch.tensor([0, 2, 5]), "boxes": one} for one in boxes]
    output = model(pixel_values=images, labels=labels)
    output.loss.backward()
    heads = next(module for name, module in model.named_modules() if name.endswith("decoder.class_embed"))
    return output, [0.0 if head.weight.grad is None else head.weight.grad.norm().item() for head in heads]


@pytest.mark.parametrize("kind", ["D-FINE", "DEIMv2"])
def test_transformers_pairs_the_logits_of_a_layer_with_the_corners_of_the_next(kind: str) -> None:
    """The logits before the first layer come first, and nothing of the corners and references beside them does.

    So the classes of the last layer but one are not trained at all, and no layer's FGL has its own boxes.
    """
    if transformers.__version__ != RELEASE:
        pytest.skip(f"a fault of transformers {RELEASE}, not {transformers.__version__}")
    output, norms = run(make(kind))
    assert output.intermediate_logits.shape[1] == LAYERS + 1
    assert output.intermediate_predicted_corners.shape[1] == LAYERS
    assert norms[LAYERS - 2] == 0
    assert "loss_fgl" not in output.loss_dict, "the last layer's"
    assert "loss_fgl_aux_0" in output.loss_dict
    assert min(norms[: LAYERS - 2] + norms[LAYERS - 1 :]) > 1e-4
