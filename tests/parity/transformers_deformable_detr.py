"""Deformable DETR of transformers with our weights, and our names for its parameters."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

from boxwright.detector import Detector
from boxwright.layers.conv import FrozenBatchNorm2d

RENAMES = [
    (r"^backbone\.conv1\.", r"model.backbone.model.embedder.embedder.convolution."),
    (r"^backbone\.bn1\.", r"model.backbone.model.embedder.embedder.normalization."),
    (r"^backbone\.layer(\d)\.", lambda m: f"model.backbone.model.encoder.stages.{int(m[1]) - 1}.layers."),
    (r"(stages.*)\.conv(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.convolution."),
    (r"(stages.*)\.bn(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.normalization."),
    (r"\.downsample\.0\.", r".shortcut.convolution."),
    (r"\.downsample\.1\.", r".shortcut.normalization."),
    (r"^necks\.0\.level_embedding$", r"model.level_embed"),
    (r"^necks\.0\.layers\.", r"model.encoder.layers."),
    (r"^head\.queries\.", r"model.query_position_embeddings."),
    (r"^head\.reference_points\.", r"model.reference_points."),
    (r"^head\.encoder_output\.0\.", r"model.enc_output."),
    (r"^head\.encoder_output\.1\.", r"model.enc_output_norm."),
    (r"^head\.proposal_queries\.0\.", r"model.pos_trans."),
    (r"^head\.proposal_queries\.1\.", r"model.pos_trans_norm."),
    (r"^head\.layers\.", r"model.decoder.layers."),
    (r"^head\.classes\.", r"class_embed."),
    (r"^head\.boxes\.", r"bbox_embed."),
    (r"\.norm1\.", r".self_attn_layer_norm."),
    (r"(encoder.*)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder.*)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"\.norm3\.", r".final_layer_norm."),
    (r"\.self_attention\.out_proj\.", r".self_attn.o_proj."),
    (r"\.self_attention\.", r".self_attn."),
    (r"\.cross_attention\.", r".encoder_attn."),
    (r"\.value_projection\.", r".value_proj."),
    (r"\.output_projection\.", r".output_proj."),
    (r"\.feed_forward\.linear1\.", r".mlp.fc1."),
    (r"\.feed_forward\.linear2\.", r".mlp.fc2."),
]


def renamed(ours: dict[str, Tensor], levels: list[str]) -> dict[str, Tensor]:
    """Tensors under transformers' names; the joint projection of our attention is split into its three."""
    theirs = {}
    for name, tensor in ours.items():
        name = re.sub(r"^necks\.0\.projections\.(\w+)\.", lambda m: f"model.input_proj.{levels.index(m[1])}.", name)
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        joint = re.match(r"(.*)in_proj_(weight|bias)$", name)
        if joint:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                theirs[f"{joint[1]}{letter}_proj.{joint[2]}"] = part
        else:
            theirs[name] = tensor
    return theirs


def transformers_deformable_detr(ours: Detector, *, depth: int, width: int = 64, dropout: float = 0.0) -> Any:
    """``DeformableDetrForObjectDetection`` on a ResNet of this depth and width, holding the weights of ``ours``."""
    neck, head = ours.necks[0], ours.head
    basic = depth == 18
    expansion = 1 if basic else 4
    backbone = ResNetConfig(
        depths=[2, 2, 2, 2] if basic else [3, 4, 6, 3],
        hidden_sizes=[expansion * width * 2**i for i in range(4)],
        layer_type="basic" if basic else "bottleneck",
        embedding_size=width,
        out_features=[f"stage{name[1]}" for name in map(_stage, neck.in_levels)],
    )
    heads, feedforward = neck.layers[0].self_attention.num_heads, neck.layers[0].feed_forward.linear1.out_features
    config = DeformableDetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        d_model=head.hidden_dim,
        encoder_layers=len(neck.layers),
        decoder_layers=len(head.layers),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=feedforward,
        decoder_ffn_dim=feedforward,
        num_feature_levels=len(neck.out_spec),
        num_queries=head.num_queries,
        two_stage_num_proposals=head.num_queries,
        num_labels=head.classes[0].out_features,
        with_box_refine=head.refinement != "none",
        two_stage=head.two_stage,
        class_cost=2,
        auxiliary_loss=True,
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        # With it the class heads of all layers are one, also where refinement has one per layer.
        tie_word_embeddings=head.refinement == "none",
    )
    theirs = DeformableDetrForObjectDetection(config)
    if head.refinement != "none":
        # Two names of one head, as in the published code; untied they are copies.
        theirs.model.decoder.bbox_embed = theirs.bbox_embed
    if head.two_stage:
        theirs.model.decoder.class_embed = theirs.class_embed
    state = renamed(ours.state_dict(), list(neck.out_spec))
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    shared = r"num_batches_tracked|^model\.decoder\.\w+_embed" + (
        "" if head.refinement != "none" else r"|^\w+_embed\.[1-9]"
    )
    assert all(re.search(shared, name) for name in missing), missing
    # It freezes the whole backbone: it looks for "stage.1" where the name is "stages.1".
    return theirs.requires_grad_(True)


def _stage(level: str) -> str:
    return f"c{int(level[1]) - 1}"


@torch.no_grad()
def random_weights(detector: Detector, images: Tensor) -> None:
    """Weights that tell images and queries apart, and norm statistics that fit them.

    With fresh ones all queries answer alike, and every top k is a tie.
    """
    generator = torch.Generator().manual_seed(0)
    norms = [child for child in detector.modules() if isinstance(child, FrozenBatchNorm2d)]
    scales = {id(m.weight) for m in detector.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)}
    for name, parameter in detector.named_parameters():
        if name.endswith(("queries.weight", "level_embedding")):
            parameter.normal_(0, 1, generator=generator)
        elif parameter.ndim > 1:
            gain = 2.0 if parameter.ndim == 4 else 1.0
            # Features of random weights change from cell to cell: samples that jump multiply float32's rounding.
            if "sampling_offsets" in name or re.search(r"boxes.*layers\.2\.", name):
                gain = 0.05
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
        elif id(parameter) in scales:
            parameter.uniform_(0.5, 1.0, generator=generator)
        elif "sampling_offsets" not in name:
            parameter.normal_(0, 0.1, generator=generator)
    for norm in norms:
        norm.weight.uniform_(0.5, 1.0, generator=generator)
        norm.bias.normal_(0, 0.1, generator=generator)
        norm.register_forward_pre_hook(_take_statistics)
    detector.backbone(images)
    for norm in norms:
        norm._forward_pre_hooks.clear()


def _take_statistics(norm: FrozenBatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3)))
