"""DETR and Table Transformer of Hugging Face, as ``save_pretrained`` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from boxwright.detector import Detector
from boxwright.weights.operations import Join
from boxwright.weights.projects.detr import (
    HEADS,
    DETRStructure,
    infer_structure,
    read_structure,
    weights_without_counters,
)
from boxwright.weights.projects.huggingface import (
    DETR_PROCESSOR,
    read_categories,
    read_preprocessing,
    write_categories,
    write_preprocessing,
)
from boxwright.weights.projects.huggingface_backbone import HuggingFaceBackbone, read_backbone, write_backbone
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Skip, Table, Tie

__all__ = ["HuggingFaceDETR"]

_BACKBONE = "model.backbone.conv_encoder.model."

_IN_MEMORY = {_BACKBONE: "model.backbone.model.", ".out_proj.": ".o_proj.", ".fc{k}.": ".mlp.fc{k}."}
"""Names that transformers 5 has in memory for those on disk: files of ``torch.save(model.state_dict())``."""

_OLD_POSITIONS, _POSITIONS = "model.backbone.position_embedding.", "model.position_embedding."
"""Learned positions: Table Transformer has them with the backbone, as DETR had before transformers 5."""

_SEGMENTATION = "detr."
"""Before the names of ``DetrForSegmentation``."""

_CONDITIONAL = "model.decoder.layers.0.ca_qcontent_proj.weight"

_TABLE_TRANSFORMER = "table-transformer"


class HuggingFaceDETR:
    """Source: transformers 5.24, ``DetrForObjectDetection`` and ``TableTransformerForObjectDetection``."""

    title = "DETR of Hugging Face"
    example = "hf:facebook/detr-resnet-50"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        names = ("class_labels_classifier.weight", "model.query_position_embeddings.weight")
        return any(files.has(*(prefix + name for name in names)) for prefix in ("", _SEGMENTATION))

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        config, notes = files.config, []
        prefix = "" if files.has("class_labels_classifier.weight") else _SEGMENTATION
        if files.has(prefix + _CONDITIONAL) or config.get("model_type") == "conditional_detr":
            raise ValueError("Conditional DETR, whose attentions Boxwright does not have")
        in_memory = any(name.startswith(prefix + _IN_MEMORY[_BACKBONE]) for name in files.tensors)
        backbone = read_backbone(files, prefix + (_IN_MEMORY[_BACKBONE] if in_memory else _BACKBONE))
        learned = _POSITIONS if files.has(f"{prefix}{_POSITIONS}row_embeddings.weight") else _OLD_POSITIONS
        table = _make_table(backbone.rows(_BACKBONE), learned, prefix, in_memory=in_memory)
        tensors = {ours: files.tensors[theirs] for ours, theirs in table.locate(files.tensors).items()}
        structure = infer_structure(tensors)
        structure = replace(structure, backbone={**structure.backbone, **backbone.options})
        if config:
            structure = _add_config(structure, config)
        else:
            notes.append(
                f"no config.json: {HEADS} attention heads and no dilation (DC5); neck.num_heads, "
                "head.decoder.num_heads and backbone.dilation say otherwise"
            )
        if prefix:
            notes.append("a model for panoptic segmentation: its boxes and classes are read, its masks are not")
        categories, class_notes = read_categories(config, structure.num_classes)
        preprocessing = read_preprocessing(files, DETR_PROCESSOR)
        return SourceModel(
            recipe=structure.recipe,
            overrides={**structure.overrides(), **preprocessing.overrides},
            categories=categories,
            table=table,
            assumptions=(*notes, *class_notes, *preprocessing.assumptions),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout, with transformers' own ResNet, or timm's where it is dilated."""
        structure = read_structure(detector)
        config = {**_write_config(structure, detector), **write_categories(detector.categories)}
        rows = HuggingFaceBackbone(is_timm="timm" in config["backbone_config"]["model_type"]).rows(_BACKBONE)
        table = _make_table(rows, _OLD_POSITIONS if structure.pre_norm else _POSITIONS)
        return Layout(
            tensors=table.write(weights_without_counters(detector)).tensors,
            files={
                "config.json": config,
                "preprocessor_config.json": write_preprocessing(detector.input_format, "DetrImageProcessor"),
            },
        )


def _add_config(structure: DETRStructure, config: Mapping[str, Any]) -> DETRStructure:
    """Add what the configuration says beyond the tensors."""
    if (activation := config.get("activation_function", "relu")) != "relu":
        raise ValueError(f"activation_function {activation} in the feed-forwards; Boxwright's DETR has relu")
    if (channels := config.get("num_channels", 3)) != 3:
        raise ValueError(f"images of {channels} channels; Boxwright's have 3")
    return replace(
        structure,
        encoder=replace(structure.encoder, num_heads=config.get("encoder_attention_heads", HEADS)),
        decoder=replace(structure.decoder, num_heads=config.get("decoder_attention_heads", HEADS)),
        dropout=config.get("dropout", 0.1),
    )


def _write_config(structure: DETRStructure, detector: Detector) -> dict[str, Any]:
    """Make ``config.json`` but for the classes."""
    name = "TableTransformer" if structure.pre_norm else "Detr"
    config: dict[str, Any] = {
        "architectures": [f"{name}ForObjectDetection"],
        "model_type": _TABLE_TRANSFORMER if structure.pre_norm else "detr",
        "activation_function": "relu",
        "d_model": structure.hidden_dim,
        "dropout": structure.dropout,
        "num_channels": 3,
        "num_queries": structure.num_queries,
        "position_embedding_type": structure.positions,
        "use_timm_backbone": False,
        "backbone_config": write_backbone(structure.backbone),
    }
    for part in ("encoder", "decoder"):
        sizes = getattr(structure, part)
        config |= {
            f"{part}_layers": sizes.num_layers,
            f"{part}_attention_heads": sizes.num_heads,
            f"{part}_ffn_dim": sizes.feedforward_dim,
        }
    assert detector.recipe is not None
    head = detector.recipe.to_dict()["head"]
    losses = {
        "bbox_loss_coefficient": head["loss_weights"]["l1_weight"],
        "giou_loss_coefficient": head["loss_weights"]["giou_weight"],
    }
    # transformers refuses 5.0 where it expects 5.
    whole = {name: int(value) for name, value in losses.items() if value == int(value)}
    return config | {"eos_coefficient": head["loss_weights"]["no_object_weight"], **whole}


def _make_table(backbone: Sequence[Row], learned: str, prefix: str = "", *, in_memory: bool = False) -> Table:
    """Make the table of names.

    Args:
        backbone: its rows.
        learned: before the names of learned positions.
        prefix: before all names of what is no mask head.
        in_memory: names that transformers 5 has in memory, not on disk.
    """
    encoder, decoder = "model.encoder.layers.{n}.", "model.decoder.layers.{n}."
    ours_encoder, ours_decoder = "necks.0.layers.{n}.", "head.layers.{n}."
    rows = [
        *backbone,
        Row("model.input_projection.{*}", "necks.0.projections.c5.{*}"),
        Row(f"{learned}row_embeddings.{{*}}", "necks.0.positions.learned.rows.{*}"),
        Row(f"{learned}column_embeddings.{{*}}", "necks.0.positions.learned.columns.{*}"),
        *_attention_rows(f"{encoder}self_attn.", f"{ours_encoder}self_attention."),
        Row(f"{encoder}self_attn_layer_norm.{{*}}", f"{ours_encoder}norm1.{{*}}"),
        Row(f"{encoder}fc{{k}}.{{*}}", f"{ours_encoder}feed_forward.linear{{k}}.{{*}}"),
        Row(f"{encoder}final_layer_norm.{{*}}", f"{ours_encoder}norm2.{{*}}"),
        Row("model.encoder.layernorm.{*}", "necks.0.norm.{*}"),
        *_attention_rows(f"{decoder}self_attn.", f"{ours_decoder}self_attention."),
        Row(f"{decoder}self_attn_layer_norm.{{*}}", f"{ours_decoder}norm1.{{*}}"),
        *_attention_rows(f"{decoder}encoder_attn.", f"{ours_decoder}cross_attention."),
        Row(f"{decoder}encoder_attn_layer_norm.{{*}}", f"{ours_decoder}norm2.{{*}}"),
        Row(f"{decoder}fc{{k}}.{{*}}", f"{ours_decoder}feed_forward.linear{{k}}.{{*}}"),
        Row(f"{decoder}final_layer_norm.{{*}}", f"{ours_decoder}norm3.{{*}}"),
        Row("model.decoder.layernorm.{*}", "head.norm.{*}"),
        Row("model.query_position_embeddings.{*}", "head.queries.{*}"),
        Row("class_labels_classifier.{*}", "head.classes.{*}"),
        Row("bbox_predictor.layers.{n}.{*}", "head.boxes.layers.{n}.{*}"),
    ]
    reason = "of the mask head, which Boxwright's DETR does not have"
    return Table(
        rows=[
            replace(row, theirs=tuple(prefix + (_to_memory(name) if in_memory else name) for name in row.their_names))
            for row in rows
        ],
        skips=[Skip("mask_head.{**}", reason), Skip("bbox_attention.{**}", reason)] if prefix else [],
        # Theirs has one table of learned positions, which encoder and decoder share.
        ties=[Tie("head.positions.learned.{**}", "necks.0.positions.learned.{**}")],
    )


def _to_memory(name: str) -> str:
    for disk, memory in _IN_MEMORY.items():
        name = name.replace(disk, memory)
    return name


def _attention_rows(theirs: str, ours: str) -> list[Row]:
    return [
        Row(tuple(f"{theirs}{letter}_proj.{{*}}" for letter in "qkv"), f"{ours}in_proj_{{*}}", Join()),
        Row(f"{theirs}out_proj.{{*}}", f"{ours}out_proj.{{*}}"),
    ]
