"""RT-DETR of transformers with our weights, and our names for its parameters."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from boxwright.backbones.resnet_vd import BottleneckVD
from boxwright.layers.conv import FrozenBatchNorm2d

RENAMES = [
    (r"^backbone\.stem\.(\d)\.", r"model.backbone.model.embedder.embedder.\1."),
    (r"^backbone\.stages\.c2\.", r"model.backbone.model.encoder.stages.0.layers."),
    (r"^backbone\.stages\.c3\.", r"model.backbone.model.encoder.stages.1.layers."),
    (r"^backbone\.stages\.c4\.", r"model.backbone.model.encoder.stages.2.layers."),
    (r"^backbone\.stages\.c5\.", r"model.backbone.model.encoder.stages.3.layers."),
    (r"^(model\.backbone.*layers\.\d+\.)conv1\.", r"\1layer.0."),
    (r"^(model\.backbone.*layers\.\d+\.)conv2\.", r"\1layer.1."),
    (r"^(model\.backbone.*layers\.\d+\.)conv3\.", r"\1layer.2."),
    (r"^(model\.backbone.*)\.conv\.", r"\1.convolution."),
    (r"^(model\.backbone.*)\.norm\.", r"\1.normalization."),
    (r"^necks\.0\.projections\.c(\d)\.conv\.", lambda m: f"model.encoder_input_proj.{int(m[1]) - 3}.0."),
    (r"^necks\.0\.projections\.c(\d)\.norm\.", lambda m: f"model.encoder_input_proj.{int(m[1]) - 3}.1."),
    (r"^necks\.0\.layers\.", r"model.encoder.aifi.0.layers."),
    (r"^necks\.0\.laterals\.", r"model.encoder.lateral_convs."),
    (r"^necks\.0\.down_blocks\.", r"model.encoder.fpn_blocks."),
    (r"^necks\.0\.downsamples\.", r"model.encoder.downsample_convs."),
    (r"^necks\.0\.up_blocks\.", r"model.encoder.pan_blocks."),
    (r"\.blocks\.(\d)\.conv3x3\.", r".bottlenecks.\1.conv1."),
    (r"\.blocks\.(\d)\.conv1x1\.", r".bottlenecks.\1.conv2."),
    (r"\.expand\.", r".conv3."),
    (r"^head\.projections\.c(\d)\.conv\.", lambda m: f"model.decoder_input_proj.{int(m[1]) - 3}.0."),
    (r"^head\.projections\.c(\d)\.norm\.", lambda m: f"model.decoder_input_proj.{int(m[1]) - 3}.1."),
    (r"^head\.encoder_output\.", r"model.enc_output."),
    (r"^head\.encoder_classes\.", r"model.enc_score_head."),
    (r"^head\.encoder_boxes\.", r"model.enc_bbox_head."),
    (r"^head\.query_positions\.", r"model.decoder.query_pos_head."),
    (r"^head\.denoising_classes\.", r"model.denoising_class_embed."),
    (r"^head\.layers\.(\d)\.norm1\.", r"model.decoder.layers.\1.self_attn_layer_norm."),
    (r"^head\.layers\.(\d)\.norm2\.", r"model.decoder.layers.\1.encoder_attn_layer_norm."),
    (r"^head\.layers\.(\d)\.norm3\.", r"model.decoder.layers.\1.final_layer_norm."),
    (r"^head\.layers\.", r"model.decoder.layers."),
    (r"^head\.classes\.", r"model.decoder.class_embed."),
    (r"^head\.boxes\.", r"model.decoder.bbox_embed."),
    (r"\.self_attention\.out_proj\.", r".self_attn.o_proj."),
    (r"\.self_attention\.", r".self_attn."),
    (r"\.cross_attention\.", r".encoder_attn."),
    (r"\.value_projection\.", r".value_proj."),
    (r"\.output_projection\.", r".output_proj."),
    (r"\.feed_forward\.linear1\.", r".mlp.fc1."),
    (r"\.feed_forward\.linear2\.", r".mlp.fc2."),
    (r"(aifi.*)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(aifi.*)\.norm2\.", r"\1.final_layer_norm."),
]


def renamed(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under transformers' names; the joint projection of our attention is split into its three."""
    theirs = {}
    for name, tensor in ours.items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        joint = re.match(r"(.*)in_proj_(weight|bias)$", name)
        if joint:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                theirs[f"{joint[1]}{letter}_proj.{joint[2]}"] = part
        else:
            theirs[name] = tensor
    return theirs


def transformers_rtdetr(depth: int, ours: nn.Module, *, num_denoising: int) -> Any:
    """``RTDetrForObjectDetection`` of this depth (18 or 50), holding the weights of ``ours``."""
    basic = depth == 18
    backbone = RTDetrResNetConfig(
        depths=[2, 2, 2, 2] if basic else [3, 4, 6, 3],
        hidden_sizes=[64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        layer_type="basic" if basic else "bottleneck",
        embedding_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512] if basic else [512, 1024, 2048],
        hidden_expansion=0.5 if basic else 1.0,
        decoder_layers=3 if basic else 6,
        num_labels=80,
        num_denoising=num_denoising,
        freeze_backbone_batch_norms=not basic,
    )
    theirs = RTDetrForObjectDetection(config)
    state = renamed(ours.state_dict())
    if num_denoising == 0:
        del state["model.denoising_class_embed.weight"]
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all("num_batches_tracked" in name for name in missing), missing
    return theirs


def random_images(count: int, height: int, width: int) -> Tensor:
    """Coarse patches and some noise. Of noise alone, deep layers see no more than its mean."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.rand(count, 3, 6, 6, generator=generator)
    patches = F.interpolate(patches, size=(height, width), mode="bilinear")
    return 0.9 * patches + 0.1 * torch.rand(count, 3, height, width, generator=generator)


@torch.no_grad()
def random_weights(module: nn.Module, images: Tensor) -> None:
    """Weights that tell images and queries apart, and norm statistics that fit them.

    Fresh heads predict the same for every query, and every top k is then a tie.
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            gain = 1.0 if parameter.ndim == 2 else 2.0
            # Features of random weights change from cell to cell: samples that jump multiply float32's rounding.
            if "sampling_offsets" in name or re.search(r"boxes.*layers\.2\.", name):
                gain = 0.05
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            parameter.uniform_(0.5, 1.0, generator=generator)
        elif "sampling_offsets" not in name:
            parameter.normal_(0, 0.1, generator=generator)
        if name == "head.denoising_classes.weight":
            parameter[-1] = 0
    # Frozen norms have to fit what comes in as well, and no two of their constants may be alike.
    for child in module.modules():
        if isinstance(child, FrozenBatchNorm2d):
            child.weight.uniform_(0.5, 1.0, generator=generator)
            child.bias.normal_(0, 0.1, generator=generator)
            child.register_forward_pre_hook(_take_statistics)
    for child in module.modules():
        if isinstance(child, BottleneckVD):
            child.conv3.norm.weight.mul_(0.3)
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    module.train()
    module(images)
    for norm in norms:
        norm.momentum = 0.1
    for child in module.modules():
        if isinstance(child, FrozenBatchNorm2d):
            child._forward_pre_hooks.clear()


def _take_statistics(norm: FrozenBatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3)))
