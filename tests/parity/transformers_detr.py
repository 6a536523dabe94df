"""DETR of transformers with our weights, and our names for its parameters."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from boxwright.layers.conv import FrozenBatchNorm2d
from boxwright.layers.resnet import Bottleneck
from boxwright.structures import Targets

RENAMES = [
    (r"^backbone\.conv1\.", r"model.backbone.model.embedder.embedder.convolution."),
    (r"^backbone\.bn1\.", r"model.backbone.model.embedder.embedder.normalization."),
    (r"^backbone\.layer(\d)\.", lambda m: f"model.backbone.model.encoder.stages.{int(m[1]) - 1}.layers."),
    (r"(stages.*)\.conv(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.convolution."),
    (r"(stages.*)\.bn(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.normalization."),
    (r"\.downsample\.0\.", r".shortcut.convolution."),
    (r"\.downsample\.1\.", r".shortcut.normalization."),
    (r"^necks\.0\.projections\.c5\.", r"model.input_projection."),
    (r"^(necks\.0|head)\.positions\.learned\.rows\.", r"model.position_embedding.row_embeddings."),
    (r"^(necks\.0|head)\.positions\.learned\.columns\.", r"model.position_embedding.column_embeddings."),
    (r"^necks\.0\.layers\.", r"model.encoder.layers."),
    (r"^head\.queries\.", r"model.query_position_embeddings."),
    (r"^head\.layers\.", r"model.decoder.layers."),
    (r"^head\.norm\.", r"model.decoder.layernorm."),
    (r"^head\.classes\.", r"class_labels_classifier."),
    (r"^head\.boxes\.", r"bbox_predictor."),
    (r"\.norm1\.", r".self_attn_layer_norm."),
    (r"(encoder.*)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder.*)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"\.norm3\.", r".final_layer_norm."),
    (r"_attention\.out_proj\.", r"_attention.o_proj."),
    (r"\.self_attention\.", r".self_attn."),
    (r"\.cross_attention\.", r".encoder_attn."),
    (r"\.feed_forward\.linear1\.", r".mlp.fc1."),
    (r"\.feed_forward\.linear2\.", r".mlp.fc2."),
]


def renamed(ours: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Tensors under transformers' names; the joint projection of our attention is split into its three.

    Two under one name are our two tables of learned positions, where transformers has one.
    """
    theirs: dict[str, list[Tensor]] = {}
    for name, tensor in ours.items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        joint = re.match(r"(.*)in_proj_(weight|bias)$", name)
        if joint:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                theirs.setdefault(f"{joint[1]}{letter}_proj.{joint[2]}", []).append(part)
        else:
            theirs.setdefault(name, []).append(tensor)
    return theirs


def transformers_detr(ours: nn.Module, *, width: int, positions: str, dilated: bool) -> Any:
    """``DetrForObjectDetection`` on a ResNet-50 of this width, holding the weights of ``ours``."""
    backbone = ResNetConfig(
        depths=[3, 4, 6, 3],
        hidden_sizes=[4 * width, 8 * width, 16 * width, 32 * width],
        layer_type="bottleneck",
        embedding_size=width,
        out_features=["stage4"],
    )
    head: Any = ours.head
    config = DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        d_model=head.norm.normalized_shape[0],
        encoder_layers=len(ours.necks[0].layers),  # type: ignore[index, union-attr]
        decoder_layers=len(head.layers),
        encoder_attention_heads=head.layers[0].self_attention.num_heads,
        decoder_attention_heads=head.layers[0].self_attention.num_heads,
        encoder_ffn_dim=head.layers[0].feed_forward.linear1.out_features,
        decoder_ffn_dim=head.layers[0].feed_forward.linear1.out_features,
        num_queries=head.num_queries,
        num_labels=head.classes.out_features - 1,
        position_embedding_type=positions,
        dropout=0.0,
    )
    theirs = DetrForObjectDetection(config)
    if dilated:
        # It has a dilated ResNet through timm only, which may not be there.
        dilate(theirs.model.backbone.model.encoder.stages[3].layers)
    state = {name: tensors[0] for name, tensors in renamed(ours.state_dict()).items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all("num_batches_tracked" in name for name in missing), missing
    # It freezes the whole backbone: it looks for "stage.1" where the name is "stages.1".
    return theirs.requires_grad_(True)


def dilate(layers: nn.Sequential) -> None:
    """Stride 1 in the first block, dilation 2 in those after it, as torchvision and DETR."""
    first = layers[0]
    first.shortcut.convolution.stride = first.layer[1].convolution.stride = (1, 1)  # type: ignore[index, union-attr]
    for block in layers[1:]:
        block.layer[1].convolution.dilation = (2, 2)  # type: ignore[index, union-attr]
        block.layer[1].convolution.padding = (2, 2)  # type: ignore[index, union-attr]


def padded_batch(
    sizes: list[tuple[int, int]], counts: list[int], num_classes: int
) -> tuple[Tensor, Tensor, list[Targets]]:
    """Make a batch of images of these sizes, its padding mask, and so many objects in each."""
    generator = torch.Generator().manual_seed(1)
    shape = (max(h for h, _ in sizes), max(w for _, w in sizes))
    images, mask = torch.zeros(len(sizes), 3, *shape), torch.ones(len(sizes), *shape, dtype=torch.bool)
    targets = []
    for i, ((h, w), count) in enumerate(zip(sizes, counts, strict=True)):
        # Coarse patches and some noise. Of noise alone, deep layers see no more than its mean.
        patches = F.interpolate(torch.randn(1, 3, 6, 6, generator=generator), size=(h, w), mode="bilinear")[0]
        images[i, :, :h, :w] = patches + 0.1 * torch.randn(3, h, w, generator=generator)
        mask[i, :h, :w] = False
        corner = torch.rand(count, 2, generator=generator) * 0.6
        sides = torch.rand(count, 2, generator=generator) * 0.35 + 0.05
        boxes = torch.cat((corner, corner + sides), 1) * torch.tensor([w, h, w, h])
        targets.append(Targets(torch.randint(0, num_classes, (count,), generator=generator), boxes, (h, w)))
    return images, mask, targets


@torch.no_grad()
def random_weights(module: nn.Module, images: Tensor) -> None:
    """Weights that tell images and queries apart, and norm statistics that fit them.

    With fresh ones, attention averages over everything, and all queries answer alike.
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if "queries" in name or "positions" in name:
            parameter.normal_(0, 2, generator=generator)
        elif parameter.ndim > 1:
            gain = 2.0 if parameter.ndim == 4 else 1.0
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
            if name.endswith("in_proj_weight"):
                parameter[: 2 * parameter.shape[1]] *= 1.5
            elif name.endswith("out_proj.weight"):
                parameter *= 3 if "cross" in name else 0.3
        elif "norm" in name and name.endswith("weight"):
            parameter.uniform_(0.5, 1.0, generator=generator)
        else:
            parameter.normal_(0, 0.1, generator=generator)
    norms = [child for child in module.modules() if isinstance(child, FrozenBatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.0, generator=generator)
        norm.bias.normal_(0, 0.1, generator=generator)
        norm.register_forward_pre_hook(_take_statistics)
    for child in module.modules():
        if isinstance(child, Bottleneck):
            # Deep sums of random branches multiply float32's rounding.
            child.bn3.weight.mul_(0.3)
    module(images)
    for norm in norms:
        norm._forward_pre_hooks.clear()


def _take_statistics(norm: FrozenBatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3)))
