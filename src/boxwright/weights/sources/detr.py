"""DETR of its authors, facebookresearch/detr: files that hold ``{"model": ...}``."""

from __future__ import annotations

from boxwright.structures import Category
from boxwright.weights.labels import category_ids
from boxwright.weights.source import SourceFiles, SourceModel
from boxwright.weights.table import Row, Table

__all__ = ["AuthorsDETR"]

_ENCODER, _DECODER = "transformer.encoder.layers.{n}", "transformer.decoder.layers.{n}"

_TABLE = Table(
    rows=(
        Row("backbone.0.body.{**}", "backbone.{**}"),
        Row("input_proj.{*}", "necks.0.projections.c5.{*}"),
        Row(f"{_ENCODER}.self_attn.{{**}}", "necks.0.layers.{n}.self_attention.{**}"),
        Row(f"{_ENCODER}.linear{{k}}.{{*}}", "necks.0.layers.{n}.feed_forward.linear{k}.{*}"),
        Row(f"{_ENCODER}.norm{{k}}.{{*}}", "necks.0.layers.{n}.norm{k}.{*}"),
        Row("transformer.encoder.norm.{*}", "necks.0.norm.{*}"),
        Row(f"{_DECODER}.self_attn.{{**}}", "head.layers.{n}.self_attention.{**}"),
        Row(f"{_DECODER}.multihead_attn.{{**}}", "head.layers.{n}.cross_attention.{**}"),
        Row(f"{_DECODER}.linear{{k}}.{{*}}", "head.layers.{n}.feed_forward.linear{k}.{*}"),
        Row(f"{_DECODER}.norm{{k}}.{{*}}", "head.layers.{n}.norm{k}.{*}"),
        Row("transformer.decoder.norm.{*}", "head.norm.{*}"),
        Row("query_embed.{*}", "head.queries.{*}"),
        Row("class_embed.{*}", "head.classes.{*}"),
        Row("bbox_embed.layers.{n}.{*}", "head.boxes.layers.{n}.{*}"),
    ),
)


class AuthorsDETR:
    """Source: Carion et al., DETR, ECCV 2020; names of facebookresearch/detr 29901c5."""

    title = "DETR of its authors"
    example = "detr-r50-e632da11.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has(
            "transformer.encoder.layers.0.self_attn.in_proj_weight", "query_embed.weight", "input_proj.weight"
        )

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        depth = 101 if "backbone.0.body.layer3.22.conv1.weight" in files.tensors else 50
        categories: list[Category] = category_ids(len(files.tensors["class_embed.weight"]) - 1)
        return SourceModel(recipe=f"detr_r{depth}", overrides={}, categories=categories, table=_TABLE)
