"""Deformable DETR of its authors, fundamentalvision/Deformable-DETR: files with ``model`` and ``args``."""

from __future__ import annotations

from boxwright.detector import Detector
from boxwright.weights.projects.deformable import (
    DeformableCounts,
    DeformableVariant,
    assume_classes,
    deformable_rows,
    describe_deformable,
    find_first_level,
    locate_tensors,
    measure_own,
    query_rows,
    read_dropout,
    read_number,
)
from boxwright.weights.projects.detr import count_indices, weights_without_counters
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Skip, Table

__all__ = ["AuthorsDeformableDETR"]

_COUNTS = (
    *(Skip(f"{{**}}.{name}", "a count of operations", before_rows=True) for name in ("total_ops", "total_params")),
    *(Skip(name, "a count of operations") for name in ("total_ops", "total_params")),
)


class AuthorsDeformableDETR:
    """Source: Zhu et al., Deformable DETR, ICLR 2021; names of fundamentalvision/Deformable-DETR 11169a6."""

    title = "Deformable DETR of its authors"
    example = "r50_deformable_detr-checkpoint.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        names = (
            "transformer.level_embed",
            "transformer.encoder.layers.0.self_attn.sampling_offsets.weight",
            "backbone.0.body.conv1.weight",
        )
        return files.has(*names) and not files.has("label_enc.weight")  # DINO's, which has all of these

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        args = files.arguments
        if args.get("position_embedding", "sine") not in ("sine", "v2"):
            raise ValueError(f"its positions are {args['position_embedding']}, and ours are sines (sine)")
        variant = _find_variant(files)
        table = _table(variant, find_first_level(files, "input_proj"))
        heads = read_number(args, "nheads")
        dilation = bool(args["dilation"]) if "dilation" in args else None
        counts = DeformableCounts(heads, heads, read_number(args, "num_queries"), read_dropout(args), dilation)
        tensors = locate_tensors(table, files)
        model = describe_deformable(tensors, variant, counts)
        num_classes = tensors.side("head.classes.0.weight")
        categories, notes = assume_classes(num_classes)
        return SourceModel(
            recipe=model.recipe,
            overrides=model.overrides,
            categories=categories,
            table=table,
            assumptions=[*model.assumptions, *notes],
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        sizes = measure_own(detector, self.title)
        table = _table(sizes.variant, sizes.first_level)
        return Layout(
            tensors=table.write(weights_without_counters(detector)).tensors, file_name="checkpoint.pth", wrap=("model",)
        )


def _table(variant: DeformableVariant, first_level: int) -> Table:
    """Make the table of names.

    Args:
        variant: of the model.
        first_level: number of the finest level.
    """
    head = range(variant.num_heads)
    heads: tuple[Row, ...] = (
        Row(tuple(f"class_embed.{i}.{{*}}" for i in head), "head.classes.0.{*}"),
        Row(tuple(f"bbox_embed.{i}.{{**}}" for i in head), "head.boxes.0.{**}"),
    )
    if variant.refine:
        classes = "class_embed.{n}.{*}", "transformer.decoder.class_embed.{n}.{*}"
        boxes = "bbox_embed.{n}.{**}", "transformer.decoder.bbox_embed.{n}.{**}"
        heads = (
            Row(classes if variant.two_stage else classes[0], "head.classes.{n}.{*}"),
            Row(boxes, "head.boxes.{n}.{**}"),
        )
    queries = query_rows("transformer.", "query_embed", two_stage=variant.two_stage)
    return Table(rows=(*deformable_rows(first_level), *queries, *heads), skips=_COUNTS)


def _find_variant(files: SourceFiles) -> DeformableVariant:
    return DeformableVariant(
        num_layers=count_indices(files.tensors, "transformer.decoder.layers.{n}.{**}"),
        refine="transformer.decoder.bbox_embed.0.layers.0.weight" in files.tensors,
        two_stage="transformer.pos_trans.weight" in files.tensors,
    )
