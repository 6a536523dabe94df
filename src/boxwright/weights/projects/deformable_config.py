"""Configuration of Deformable DETR in Hugging Face layout, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boxwright.layers.resnet import blocks_per_stage, has_bottlenecks_at
from boxwright.weights.projects.deformable import DeformableCounts, OwnSizes, read_dropout, read_number


def check_config(config: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for forms that there is no counterpart of here."""
    for option, known in (("position_embedding_type", "sine"), ("activation_function", "relu")):
        if config.get(option, known) != known:
            raise ValueError(f"its {option} is {config[option]}, and ours is {known}")


def read_counts(config: Mapping[str, Any], *, is_dilated: bool) -> DeformableCounts:
    """Read what the tensors do not tell; entries that are not there have transformers' defaults."""
    if not config:
        return DeformableCounts()
    return DeformableCounts(
        encoder_heads=read_number(config, "encoder_attention_heads", 8),
        decoder_heads=read_number(config, "decoder_attention_heads", 8),
        queries=read_number(config, "two_stage_num_proposals", 300),
        dropout=read_dropout(config, 0.1),
        dilation=is_dilated,
    )


def write_config(sizes: OwnSizes) -> dict[str, Any]:
    """Make the content of ``config.json`` but for the classes.

    Raises:
        ValueError: sizes that transformers has no counterpart of, in one line.
    """
    neck, head, decoder = sizes.neck, sizes.head, sizes.head["decoder"]
    return {
        "architectures": ["DeformableDetrForObjectDetection"],
        "model_type": "deformable_detr",
        "torch_dtype": "float32",
        **_write_backbone(sizes),
        "d_model": head["hidden_dim"],
        "num_feature_levels": sizes.num_levels,
        "num_queries": head["num_queries"],
        "two_stage_num_proposals": head["num_queries"],
        "dropout": decoder["dropout"],
        "encoder_layers": neck["num_layers"],
        "encoder_attention_heads": neck["num_heads"],
        "encoder_ffn_dim": neck["feedforward_dim"],
        "encoder_n_points": _equal_points(neck["num_points"]),
        "decoder_layers": decoder["num_layers"],
        "decoder_attention_heads": decoder["num_heads"],
        "decoder_ffn_dim": decoder["feedforward_dim"],
        "decoder_n_points": _equal_points(decoder["num_points"]),
        "with_box_refine": head["refine"],
        "two_stage": head["two_stage"],
        "auxiliary_loss": head["auxiliary_losses"],
        # With refinement, it would tie the class heads of all layers to one.
        "tie_word_embeddings": not head["refine"],
    }


def _equal_points(points: int | Sequence[int]) -> int:
    counts = {points} if isinstance(points, int) else set(points)
    if len(counts) > 1:
        raise ValueError(f"transformers has as many points on every level, and this detector has {points}")
    return counts.pop()


def _write_backbone(sizes: OwnSizes) -> dict[str, Any]:
    """Make the entries of the backbone: of timm where it is dilated, which transformers' own cannot be."""
    depth, width, levels = (sizes.backbone[option] for option in ("depth", "width", "levels"))
    if levels[-1] != "c5":
        raise ValueError(f"transformers builds ResNets up to c5, and this detector has {levels[-1]} at most")
    if not sizes.is_dilated:
        return {
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
            "backbone_config": {
                "model_type": "resnet",
                "layer_type": "bottleneck" if has_bottlenecks_at(depth) else "basic",
                "depths": list(blocks_per_stage(depth)),
                "embedding_size": width,
                "hidden_sizes": [width * (4 if has_bottlenecks_at(depth) else 1) * 2**i for i in range(4)],
                "out_features": [f"stage{int(level[1]) - 1}" for level in levels],
            },
        }
    if not isinstance(depth, int) or width != 64 or len(levels) > 1 or sizes.backbone["dilation"] != "after_first":
        raise ValueError("transformers has a dilated ResNet of timm's depths and width 64, after_first, with c5 alone")
    return {
        "use_timm_backbone": True,
        "use_pretrained_backbone": False,
        "backbone": f"resnet{depth}",
        "backbone_config": None,
        "dilation": True,
    }
