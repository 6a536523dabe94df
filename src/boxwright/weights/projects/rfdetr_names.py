"""Names of tensors in the files of RF-DETR."""

from __future__ import annotations

from boxwright.weights.operations import Join
from boxwright.weights.projects.deformable import attention_rows
from boxwright.weights.projects.mask_branch_names import make_mask_rows
from boxwright.weights.table import Row, Skip, Split, Table

ENCODER = "backbone.0.encoder.encoder."
PROJECTOR = "backbone.0.projector.stages.0."
MASKS = "segmentation_head."
_OURS = "backbone.vit.body.model."
_FUSE = "necks.0.fuse.c4."


def make_rfdetr_table(num_groups: int, num_blocks: int, *, masks: bool = False) -> Table:
    """Make the table of names of a detector of one level.

    Args:
        num_groups: of queries.
        num_blocks: of the backbone that are of use: those behind the last map are not.
        masks: it has a mask branch.

    Source: roboflow/rf-detr 35ac6ab.
    """
    return Table(
        rows=(
            *_backbone_rows(num_blocks),
            *_projector_rows(),
            *_decoder_rows(),
            *_group_rows(num_groups),
            *(make_mask_rows(MASKS) if masks else ()),
        ),
        skips=(
            Skip(f"{ENCODER}embeddings.mask_token", "nothing uses it"),
            Skip(f"{ENCODER}encoder.layer.{{n+{num_blocks}}}.{{**}}", "behind the last map that is used"),
        ),
        splits=(Split("query_feat.weight", num_groups), Split("refpoint_embed.weight", num_groups)),
    )


def _backbone_rows(num_blocks: int) -> list[Row]:
    rows = [
        Row(f"{ENCODER}embeddings.cls_token", f"{_OURS}cls_token"),
        Row(f"{ENCODER}embeddings.position_embeddings", f"{_OURS}pos_embed"),
        Row(f"{ENCODER}embeddings.patch_embeddings.projection.{{*}}", f"{_OURS}patch_embed.proj.{{*}}"),
        Row(f"{ENCODER}layernorm.{{*}}", f"{_OURS}norm.{{*}}"),
    ]
    for i in range(num_blocks):
        theirs, ours = f"{ENCODER}encoder.layer.{i}.", f"{_OURS}blocks.{i}."
        parts = tuple(f"{theirs}attention.attention.{part}.{{*}}" for part in ("query", "key", "value"))
        rows += [
            Row(f"{theirs}norm{{k}}.{{*}}", f"{ours}norm{{k}}.{{*}}"),
            Row(parts, f"{ours}attn.qkv.{{*}}", Join()),
            Row(f"{theirs}attention.output.dense.{{*}}", f"{ours}attn.proj.{{*}}"),
            Row(f"{theirs}layer_scale{{k}}.lambda1", f"{ours}ls{{k}}.gamma"),
            Row(f"{theirs}mlp.fc{{k}}.{{*}}", f"{ours}mlp.fc{{k}}.{{*}}"),
        ]
    return rows


def _projector_rows() -> list[Row]:
    pairs = [(f"0.cv{1 + i}", f"0.{name}") for i, name in enumerate(("split", "mix"))]
    pairs += [(f"0.m.{{n}}.cv{1 + i}", f"0.blocks.{{n}}.{i}") for i in range(2)]
    rows = [Row(f"{PROJECTOR}1.{{*}}", f"{_FUSE}1.{{*}}")]
    for theirs, ours in pairs:
        rows.append(Row(f"{PROJECTOR}{theirs}.conv.{{*}}", f"{_FUSE}{ours}.0.{{*}}"))
        rows.append(Row(f"{PROJECTOR}{theirs}.bn.{{*}}", f"{_FUSE}{ours}.1.{{*}}"))
    return rows


def _decoder_rows() -> list[Row]:
    theirs, ours = "transformer.decoder.layers.{n}.", "head.layers.{n}."
    return [
        Row(f"{theirs}self_attn.{{**}}", f"{ours}self_attention.{{**}}"),
        *attention_rows(f"{theirs}cross_attn", f"{ours}cross_attention"),
        Row(f"{theirs}norm{{k}}.{{*}}", f"{ours}norm{{k}}.{{*}}"),
        Row(f"{theirs}linear{{k}}.{{*}}", f"{ours}feed_forward.linear{{k}}.{{*}}"),
        Row("transformer.decoder.norm.{*}", "head.norm.{*}"),
        Row("transformer.decoder.ref_point_head.{**}", "head.query_positions.{**}"),
        Row("class_embed.{*}", "head.classes.0.{*}"),
        Row("bbox_embed.{**}", "head.boxes.0.{**}"),
    ]


def _group_rows(num_groups: int) -> list[Row]:
    rows = []
    for i in range(num_groups):
        encoder = "head.encoder_" if i == 0 else f"head.group_encoders.{i - 1}."
        learned = "head.{}" if i == 0 else f"head.group_{{}}.{i - 1}"
        rows += [
            Row(f"transformer.enc_output.{i}.{{*}}", f"{encoder}output.0.{{*}}"),
            Row(f"transformer.enc_output_norm.{i}.{{*}}", f"{encoder}output.1.{{*}}"),
            Row(f"transformer.enc_out_class_embed.{i}.{{*}}", f"{encoder}classes.{{*}}"),
            Row(f"transformer.enc_out_bbox_embed.{i}.{{**}}", f"{encoder}boxes.{{**}}"),
            Row(f"query_feat.weight.{i}", f"{learned.format('contents')}.weight"),
            Row(f"refpoint_embed.weight.{i}", f"{learned.format('moves')}.weight"),
        ]
    return rows
