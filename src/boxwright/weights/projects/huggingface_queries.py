"""RT-DETR and what followed it in Hugging Face layout: names that they have in common, and what their files hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from boxwright.detector import Detector
from boxwright.weights.operations import Join
from boxwright.weights.table import Row

ENCODER_LAYER, DECODER_LAYER = "model.encoder.encoder.0.layers.{n}.", "model.decoder.layers.{n}."
"""Before the names of layers on disk; today's transformers has another name for the first in memory."""

STATED_OPTIONS: Mapping[str, tuple[str, Any]] = {
    "encoder_attention_heads": ("neck.num_heads", 8),
    "num_queries": ("head.num_queries", 300),
    "decoder_attention_heads": ("head.decoder.num_heads", 8),
    "decoder_n_points": ("head.decoder.num_points", 4),
    "decoder_method": ("head.decoder.sampling_method", "default"),
    "decoder_offset_scale": ("head.decoder.offset_scale", 0.5),
    "dropout": ("head.decoder.dropout", 0.0),
    "num_denoising": ("head.denoising.num_queries", 100),
    "label_noise_ratio": ("head.denoising.label_noise", 0.5),
    "box_noise_scale": ("head.denoising.box_noise", 1.0),
    "weight_loss_vfl": ("head.loss_weights.class_weight", 1.0),
    "weight_loss_bbox": ("head.loss_weights.l1_weight", 5.0),
    "weight_loss_giou": ("head.loss_weights.giou_weight", 2.0),
}
"""Entries of ``config.json`` that tensors do not tell, our options, and transformers' defaults."""

STATED_SIZES: Mapping[str, str] = {
    "encoder_hidden_dim": "neck.hidden_dim",
    "encoder_layers": "neck.num_layers",
    "encoder_ffn_dim": "neck.feedforward_dim",
    "hidden_expansion": "neck.expansion",
    "d_model": "head.hidden_dim",
    "decoder_ffn_dim": "head.decoder.feedforward_dim",
}
"""Entries that tensors tell too, and our options."""

FIXED_ENTRIES: Mapping[str, Any] = {
    "activation_function": "silu",
    "encoder_activation_function": "gelu",
    "decoder_activation_function": "relu",
    "normalize_before": False,
    "with_box_refine": True,
    "learn_initial_query": False,
    "positional_encoding_temperature": 10000,
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
}
"""Entries that have one value here."""


def make_attention_rows(theirs: str, ours: str, output: str = "out_proj") -> list[Row]:
    """Make the rows of an attention.

    Args:
        theirs: before their names, with its dot.
        ours: before ours.
        output: name of their last projection.
    """
    parts = tuple(f"{theirs}self_attn.{letter}_proj.{{*}}" for letter in "qkv")
    return [
        Row(parts, f"{ours}self_attention.in_proj_{{*}}", Join()),
        Row(f"{theirs}self_attn.{output}.{{*}}", f"{ours}self_attention.out_proj.{{*}}"),
        Row(f"{theirs}self_attn_layer_norm.{{*}}", f"{ours}norm1.{{*}}"),
    ]


def make_layer_rows(theirs: str, ours: str, *, last_norm: int) -> list[Row]:
    """Make the rows of a layer but for its attention to levels.

    Args:
        theirs: before their names, with its dot.
        ours: before ours.
        last_norm: number of our last norm.
    """
    return [
        *make_attention_rows(theirs, ours),
        Row(f"{theirs}fc{{k}}.{{*}}", f"{ours}feed_forward.linear{{k}}.{{*}}"),
        Row(f"{theirs}final_layer_norm.{{*}}", f"{ours}norm{last_norm}.{{*}}"),
    ]


def make_projection_rows(level: str) -> list[Row]:
    """Make the rows of the projections of levels, of encoder and decoder.

    Args:
        level: template of a level.
    """
    return [
        Row(f"model.{theirs}_input_proj.{{n}}.{i}.{{*}}", f"{ours}.projections.{level}.{name}.{{*}}")
        for theirs, ours in (("encoder", "necks.0"), ("decoder", "head"))
        for i, name in enumerate(("conv", "norm"))
    ]


def make_selection_rows() -> list[Row]:
    """Make the rows of the selection of queries, of denoising, and of the network that encodes references."""
    return [
        Row("model.denoising_class_embed.{*}", "head.denoising_classes.{*}"),
        Row("model.enc_output.{n}.{*}", "head.encoder_output.{n}.{*}"),
        Row("model.enc_score_head.{*}", "head.encoder_classes.{*}"),
        Row("model.enc_bbox_head.{**}", "head.encoder_boxes.{**}"),
        Row("model.decoder.query_pos_head.{**}", "head.query_positions.{**}"),
    ]


def make_predictor_rows(boxes: str, *, for_writing: bool = False) -> list[Row]:
    """Make the rows of the decoder's class and box heads.

    Args:
        boxes: our name of the box heads.
        for_writing: with today's names only, and not those of older files.
    """
    pairs = (("class_embed.{n}.{*}", "head.classes.{n}.{*}"), ("bbox_embed.{n}.{**}", f"head.{boxes}.{{n}}.{{**}}"))
    return [
        Row((f"model.decoder.{theirs}",) if for_writing else (f"model.decoder.{theirs}", theirs), ours)
        for theirs, ours in pairs
    ]


def check_fixed(fixed: Mapping[str, Any], config: Mapping[str, Any], project: str) -> None:
    """Refuse variants that there is no counterpart of here.

    Args:
        fixed: entries that have one value here.
        config: that may state them.
        project: what ours is called.

    Raises:
        ValueError: an entry has another value, in one line.
    """
    for name, value in fixed.items():
        actual = config.get(name, value)
        if (list(actual) if isinstance(actual, list | tuple) else actual) != value:
            raise ValueError(f"its {name} is {actual}; Boxwright's {project} has {value}")


def count_predicting_layers(options: Mapping[str, Any]) -> int:
    """Count the decoder layers that predict: transformers evaluates every layer that it has."""
    layers: int = options["head.decoder.eval_layers"] or options["head.decoder.num_layers"]
    return layers


def list_predicting_weights(detector: Detector, options: Mapping[str, Any], lists: Sequence[str]) -> dict[str, Tensor]:
    """List the tensors that are there too: of the layers that predict, and of denoising where it is.

    Args:
        detector: to write.
        options: of its parts, by dotted key.
        lists: of the head, with a module for each layer.
    """
    unused = tuple(
        f"head.{name}.{layer}."
        for name in lists
        for layer in range(count_predicting_layers(options), options["head.decoder.num_layers"])
    )
    if not options["head.denoising.num_queries"]:
        unused += ("head.denoising_classes.",)
    return {name: tensor for name, tensor in detector.state_dict().items() if not name.startswith(unused)}
