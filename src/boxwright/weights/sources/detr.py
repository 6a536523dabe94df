"""DETR of its authors, facebookresearch/detr, and models trained with their code, as Table Transformer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from boxwright.detector import Detector
from boxwright.structures import Category
from boxwright.weights.labels import category_ids
from boxwright.weights.projects.detr import (
    HEADS,
    DETRStructure,
    infer_structure,
    read_structure,
    weights_without_counters,
)
from boxwright.weights.projects.huggingface import IMAGENET_MEAN, IMAGENET_STD
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Skip, Table, Tie

__all__ = ["AuthorsDETR"]

_SEGMENTATION = "detr."
"""Before the names of ``DETRsegm``."""

_RELEASED_DILATED = ("f0fb7ef5", "a2e86def", "da08f1b1")
"""Begin of the SHA-256, and end of the file's name, of the released DC5: R50, R101, R50 panoptic."""

_RELEASED = ("e632da11", "2c7b67e5", "00ce5173", "40021d53", *_RELEASED_DILATED)
"""The same of all released files: of them everything is known."""

_TABLE_CLASSES = {
    (15, 2): ("table", "table rotated"),
    (125, 6): (
        "table",
        "table column",
        "table row",
        "table column header",
        "table projected row header",
        "table spanning cell",
    ),
}
"""Classes of Table Transformer by its numbers of queries and classes."""

_STRUCTURE_SIZE = 1000
"""Longest side of the images that Table Transformer reads rows and columns from, in pixels."""


class AuthorsDETR:
    """Source: Carion et al., DETR, ECCV 2020; files of facebookresearch/detr 29901c5, and of
    microsoft/table-transformer, which trains the same code.
    """

    title = "DETR of its authors"
    example = "detr-r50-e632da11.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        names = ("transformer.encoder.layers.0.self_attn.in_proj_weight", "query_embed.weight", "input_proj.weight")
        return any(files.has(*(prefix + name for name in names)) for prefix in ("", _SEGMENTATION))

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        prefix = "" if files.has("query_embed.weight") else _SEGMENTATION
        table = _make_table(prefix)
        if files.has(f"{prefix}transformer.decoder.layers.0.ca_qcontent_proj.weight"):
            raise ValueError("Conditional DETR, whose attentions Boxwright does not have")
        tensors = {ours: files.tensors[theirs] for ours, theirs in table.locate(files.tensors).items()}
        structure, notes = _add_arguments(infer_structure(tensors), files)
        is_table = structure.recipe == "table_transformer"
        categories, sizes, more = _describe_table_transformer(structure) if is_table else _describe_coco(structure)
        if _is_released(files):
            notes, more = [], []
        if prefix:
            notes.append("a model for panoptic segmentation: its boxes and classes are read, its masks are not")
        return SourceModel(
            recipe=structure.recipe,
            overrides={**structure.overrides(), **sizes, "input.mean": IMAGENET_MEAN, "input.std": IMAGENET_STD},
            categories=categories,
            table=table,
            assumptions=(*notes, *more),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout of a file that holds ``{"model": ...}``."""
        backbone = read_structure(detector).backbone
        # The name alone can say that c5 is dilated.
        dilated = "" if backbone["dilation"] == "none" else "-dc5"
        return Layout(
            tensors=_make_table("").write(weights_without_counters(detector)).tensors,
            file_name=f"detr-r{backbone['depth']}{dilated}.pth",
            wrap=("model",),
        )


def _make_table(prefix: str) -> Table:
    """Make the table of names.

    Args:
        prefix: before all names of what is no mask head.
    """
    encoder, decoder = f"{prefix}transformer.encoder.layers.{{n}}.", f"{prefix}transformer.decoder.layers.{{n}}."
    ours_encoder, ours_decoder = "necks.0.layers.{n}.", "head.layers.{n}."
    reason = "of the mask head, which Boxwright's DETR does not have"
    return Table(
        rows=(
            Row(f"{prefix}backbone.0.body.{{**}}", "backbone.{**}"),
            Row(f"{prefix}backbone.1.row_embed.{{*}}", "necks.0.positions.learned.rows.{*}"),
            Row(f"{prefix}backbone.1.col_embed.{{*}}", "necks.0.positions.learned.columns.{*}"),
            Row(f"{prefix}input_proj.{{*}}", "necks.0.projections.c5.{*}"),
            Row(f"{encoder}self_attn.{{**}}", f"{ours_encoder}self_attention.{{**}}"),
            Row(f"{encoder}linear{{k}}.{{*}}", f"{ours_encoder}feed_forward.linear{{k}}.{{*}}"),
            Row(f"{encoder}norm{{k}}.{{*}}", f"{ours_encoder}norm{{k}}.{{*}}"),
            Row(f"{prefix}transformer.encoder.norm.{{*}}", "necks.0.norm.{*}"),
            Row(f"{decoder}self_attn.{{**}}", f"{ours_decoder}self_attention.{{**}}"),
            Row(f"{decoder}multihead_attn.{{**}}", f"{ours_decoder}cross_attention.{{**}}"),
            Row(f"{decoder}linear{{k}}.{{*}}", f"{ours_decoder}feed_forward.linear{{k}}.{{*}}"),
            Row(f"{decoder}norm{{k}}.{{*}}", f"{ours_decoder}norm{{k}}.{{*}}"),
            Row(f"{prefix}transformer.decoder.norm.{{*}}", "head.norm.{*}"),
            Row(f"{prefix}query_embed.{{*}}", "head.queries.{*}"),
            Row(f"{prefix}class_embed.{{*}}", "head.classes.{*}"),
            Row(f"{prefix}bbox_embed.layers.{{n}}.{{*}}", "head.boxes.layers.{n}.{*}"),
        ),
        skips=[Skip("mask_head.{**}", reason), Skip("bbox_attention.{**}", reason)] if prefix else [],
        # Theirs has one table of learned positions, which encoder and decoder share.
        ties=[Tie("head.positions.learned.{**}", "necks.0.positions.learned.{**}")],
    )


def _is_released(files: SourceFiles) -> bool:
    return (files.origin.sha256 or "").startswith(_RELEASED)


def _add_arguments(structure: DETRStructure, files: SourceFiles) -> tuple[DETRStructure, list[str]]:
    """Add what no tensor tells: of the arguments in the file, of released files, or assumed with a note."""
    arguments, notes = files.arguments, list[str]()
    if "nheads" not in arguments:
        notes.append(f"{HEADS} attention heads were assumed; neck.num_heads and head.decoder.num_heads say otherwise")
    is_dilated = bool(arguments.get("dilation", False))
    if _is_released(files):
        is_dilated = (files.origin.sha256 or "").startswith(_RELEASED_DILATED)
    elif "dilation" not in arguments:
        is_dilated = "dc5" in files.origin.source.lower()
        assumed = "dilation (DC5), for dc5 in its name," if is_dilated else "no dilation (DC5)"
        notes.append(f"{assumed} was assumed; backbone.dilation says otherwise")
    heads = arguments.get("nheads", HEADS)
    structure = replace(
        structure,
        backbone={**structure.backbone, "dilation": "after_first" if is_dilated else "none"},
        encoder=replace(structure.encoder, num_heads=heads),
        decoder=replace(structure.decoder, num_heads=heads),
        dropout=arguments.get("dropout", structure.dropout),
    )
    return structure, notes


def _describe_coco(structure: DETRStructure) -> tuple[list[Category], dict[str, Any], list[str]]:
    """List classes, options of the input, and notes: labels are COCO's category ids, where there are as many."""
    categories = category_ids(structure.num_classes)
    notes = ["the preprocessing of the released models was assumed; input.image_size and so on say otherwise"]
    if categories[0].name == "class_0":
        notes.append(f"its {structure.num_classes} classes have no names: they are called class_0 and so on")
    else:
        notes.append("labels were assumed to be COCO's category ids, of which there are as many")
    return categories, _limit(800, 1333, "detr"), notes


def _describe_table_transformer(structure: DETRStructure) -> tuple[list[Category], dict[str, Any], list[str]]:
    """List the same for a Table Transformer, whose longest side is fixed and both sides are rounded."""
    names = _TABLE_CLASSES.get((structure.num_queries, structure.num_classes))
    longest = _STRUCTURE_SIZE if names and "table row" in names else 800
    notes = [
        f"images of {longest} pixels were assumed, as Table Transformer's; input.image_size and max_size say otherwise",
        "its authors resize images bicubically, and Boxwright bilinearly",
    ]
    if names:
        notes.append("its classes were assumed to be Table Transformer's, which has as many")
    else:
        names = tuple(f"class_{label}" for label in range(structure.num_classes))
        notes.append(f"its {structure.num_classes} classes have no names: they are called class_0 and so on")
    return [Category(label, name) for label, name in enumerate(names)], _limit(longest, longest, "mmcv"), notes


def _limit(shortest: int, longest: int, rule: str) -> dict[str, Any]:
    return {
        "input.resize": "shortest_side",
        "input.image_size": shortest,
        "input.max_size": longest,
        "input.size_rule": rule,
    }
