"""Deformable DETR of mmdetection 3.x: files that hold ``{"state_dict": ..., "meta": ...}``."""

from __future__ import annotations

from boxwright.weights.projects.deformable import (
    DeformableCounts,
    DeformableVariant,
    attention_rows,
    describe_deformable,
    locate_tensors,
)
from boxwright.weights.projects.detr import count_indices
from boxwright.weights.projects.mmdet_detr import layer_rows, read_facts
from boxwright.weights.source import SourceFiles, SourceModel
from boxwright.weights.table import Constant, Row, Table

__all__ = ["MMDetDeformableDETR"]

_ENCODER, _DECODER = "encoder.layers.{n}", "decoder.layers.{n}"


class MMDetDeformableDETR:
    """Source: Zhu et al., Deformable DETR, ICLR 2021; names of open-mmlab/mmdetection 3.3.0."""

    title = "Deformable DETR of mmdetection"
    example = "deformable-detr_r50_16xb2-50e_coco_20221029_210934-6bc7d21b.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return not files.has("dn_query_generator.label_embedding.weight") and files.has(
            "level_embed",
            "neck.convs.0.conv.weight",
            "encoder.layers.0.self_attn.sampling_offsets.weight",
            "decoder.layers.0.self_attn.attn.in_proj_weight",
            "bbox_head.cls_branches.0.weight",
        )

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        two_stage = "pos_trans_fc.weight" in files.tensors
        num_layers = count_indices(files.tensors, "decoder.layers.{n}.{**}")
        variant = DeformableVariant(num_layers, refine=two_stage or _has_own_heads(files), two_stage=two_stage)
        num_stages = count_indices(files.tensors, "neck.convs.{n}.conv.weight")
        table = _table(variant, num_stages)
        tensors = locate_tensors(table, files)
        num_classes = tensors.side("head.classes.0.weight")
        facts = read_facts(files, num_classes)
        is_dilated = None if facts.dilation is None else facts.dilation != "none"
        counts = DeformableCounts(facts.encoder_heads, facts.decoder_heads, facts.queries, dilation=is_dilated)
        model = describe_deformable(tensors, variant, counts)
        others = {"backbone.dilation": facts.dilation or "none", "head.max_detections": facts.max_detections}
        return SourceModel(
            recipe=model.recipe,
            overrides={**model.overrides, **others, **facts.overrides},
            categories=facts.categories,
            table=table,
            assumptions=[*model.assumptions, *facts.assumptions],
        )


def _has_own_heads(files: SourceFiles) -> bool:
    """Tell whether layers have heads of their own, which only refinement trains."""
    first, second = (files.tensors.get(f"bbox_head.reg_branches.{i}.4.weight") for i in range(2))
    return first is not None and second is not None and not first.equal(second)


def _table(variant: DeformableVariant, num_stages: int) -> Table:
    """Make the table of names.

    Args:
        variant: of the model.
        num_stages: of the backbone that are projected, up to c5.
    """
    layers = ["{n}"] if variant.refine else [str(i) for i in range(variant.num_heads)]
    ours = "{n}" if variant.refine else "0"
    heads = [
        Row(tuple(f"bbox_head.cls_branches.{layer}.{{*}}" for layer in layers), f"head.classes.{ours}.{{*}}"),
        *(
            Row(
                tuple(f"bbox_head.reg_branches.{layer}.{2 * i}.{{*}}" for layer in layers),
                f"head.boxes.{ours}.layers.{i}.{{*}}",
            )
            for i in range(3)
        ),
    ]
    queries = [
        Row("query_embedding.{*}", "head.queries.{*}"),
        Row("reference_points_fc.{*}", "head.reference_points.{*}"),
    ]
    if variant.two_stage:
        queries = [
            Row("memory_trans_fc.{*}", "head.encoder_output.0.{*}"),
            Row("memory_trans_norm.{*}", "head.encoder_output.1.{*}"),
            Row("pos_trans_fc.{*}", "head.proposal_queries.0.{*}"),
            Row("pos_trans_norm.{*}", "head.proposal_queries.1.{*}"),
        ]
    rows = [
        Row("backbone.{**}", "backbone.{**}"),
        *(
            Row(f"neck.{convs}.{{n}}.{theirs}.{{*}}", f"necks.0.projections.c{{n+{first}}}.{i}.{{*}}")
            for convs, first in (("convs", 6 - num_stages), ("extra_convs", 6))
            for i, theirs in enumerate(("conv", "gn"))
        ),
        Row("level_embed", "necks.0.level_embedding"),
        *attention_rows(f"{_ENCODER}.self_attn", "necks.0.layers.{n}.self_attention"),
        *layer_rows("encoder", "necks.0.layers.{n}"),
        Row(f"{_DECODER}.self_attn.attn.{{**}}", "head.layers.{n}.self_attention.{**}"),
        *attention_rows(f"{_DECODER}.cross_attn", "head.layers.{n}.cross_attention"),
        *layer_rows("decoder", "head.layers.{n}"),
    ]
    # Convolutions before group norms have none there.
    bias = Constant("necks.0.projections.c{n}.0.bias", 0.0)
    return Table(rows=[*rows, *queries, *heads], constants=[bias])
