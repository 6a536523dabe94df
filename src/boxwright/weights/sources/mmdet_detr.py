"""DETR of mmdetection 3.x: files that hold ``{"state_dict": ..., "meta": ...}``."""

from __future__ import annotations

from dataclasses import replace

from boxwright.weights.projects.deformable import locate_tensors
from boxwright.weights.projects.detr import infer_structure
from boxwright.weights.projects.mmdet_detr import layer_rows, read_facts
from boxwright.weights.source import SourceFiles, SourceModel
from boxwright.weights.table import Row, Table

__all__ = ["MMDetDETR"]

_ENCODER, _DECODER = "encoder.layers.{n}", "decoder.layers.{n}"

_TABLE = Table(
    rows=(
        Row("backbone.{**}", "backbone.{**}"),
        Row("neck.convs.0.conv.{*}", "necks.0.projections.c5.{*}"),
        Row(f"{_ENCODER}.self_attn.attn.{{**}}", "necks.0.layers.{n}.self_attention.{**}"),
        *layer_rows("encoder", "necks.0.layers.{n}"),
        Row(f"{_DECODER}.self_attn.attn.{{**}}", "head.layers.{n}.self_attention.{**}"),
        Row(f"{_DECODER}.cross_attn.attn.{{**}}", "head.layers.{n}.cross_attention.{**}"),
        *layer_rows("decoder", "head.layers.{n}"),
        Row("decoder.post_norm.{*}", "head.norm.{*}"),
        Row("query_embedding.{*}", "head.queries.{*}"),
        Row("bbox_head.fc_cls.{*}", "head.classes.{*}"),
        Row("bbox_head.reg_ffn.layers.0.0.{*}", "head.boxes.layers.0.{*}"),
        Row("bbox_head.reg_ffn.layers.1.{*}", "head.boxes.layers.1.{*}"),
        Row("bbox_head.fc_reg.{*}", "head.boxes.layers.2.{*}"),
    ),
)


class MMDetDETR:
    """Source: Carion et al., DETR, ECCV 2020; names of open-mmlab/mmdetection 3.3.0."""

    title = "DETR of mmdetection"
    example = "detr_r50_8xb2-150e_coco_20221023_153551-436d03e8.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has(
            "neck.convs.0.conv.weight",
            "encoder.layers.0.self_attn.attn.in_proj_weight",
            "decoder.layers.0.cross_attn.attn.in_proj_weight",
            "decoder.post_norm.weight",
            "bbox_head.fc_cls.weight",
        )

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        tensors = locate_tensors(_TABLE, files)
        # Sides that are read below; others are compared with ours.
        for name in ("head.classes.weight", "head.queries.weight", "necks.0.layers.0.feed_forward.linear1.weight"):
            tensors.side(name)
        for name in ("backbone.conv1.weight", "necks.0.projections.c5.weight"):
            tensors.side(name, ndim=4)
        structure = infer_structure(tensors)
        facts = read_facts(files, structure.num_classes)
        structure = replace(
            structure,
            backbone={**structure.backbone, "dilation": facts.dilation or "none"},
            encoder=replace(structure.encoder, num_heads=facts.encoder_heads or structure.encoder.num_heads),
            decoder=replace(structure.decoder, num_heads=facts.decoder_heads or structure.decoder.num_heads),
        )
        notes = list(facts.assumptions)
        if facts.encoder_heads is None:
            notes.append(
                f"the number of heads is not in the weights: neck.num_heads {structure.encoder.num_heads} and "
                f"head.decoder.num_heads {structure.decoder.num_heads} are assumed; nor is dilation, and "
                "backbone.dilation none is assumed"
            )
        return SourceModel(
            recipe=structure.recipe,
            overrides={**structure.overrides(), **facts.overrides},
            categories=facts.categories,
            table=_TABLE,
            assumptions=notes,
        )
