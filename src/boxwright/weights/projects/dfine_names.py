"""Names of tensors in the files of D-FINE's authors."""

from __future__ import annotations

from dataclasses import dataclass

from boxwright.weights.projects.rtdetr_names import OWN, sampling_rows
from boxwright.weights.table import Row, Skip, Table

LAYER = "decoder.decoder.layers.{n}"
"""Template of a decoder layer's name."""

HGNET_ROWS = (
    Row("backbone.stages.{s}.{**}", "backbone.body.stages_{s}.{**}"),
    Row("backbone.stem.{**}", "backbone.body.stem.{**}"),
)

SKIPS = (
    Skip("decoder.anchors", "computed from the size of the input"),
    Skip("decoder.valid_mask", "computed from the size of the input"),
    Skip(f"{LAYER}.cross_attn.num_points_scale", "the numbers of points, which are options"),
    *(
        Skip(f"decoder.{inside}{name}", "constants of the bins, which are options")
        for inside in ("", "decoder.")
        for name in ("up", "reg_scale")
    ),
)
"""Constants of the decoder."""


def make_dfine_table(num_levels: int) -> Table:
    """Make the table of names of a model whose encoder takes so many levels, the last of which is c5.

    Source: Peterande/D-FINE 4a1f73a.
    """
    level = f"c{{n+{6 - num_levels}}}"
    return Table(
        rows=(
            *HGNET_ROWS,
            *make_encoder_rows(level),
            *make_decoder_rows(level),
            Row("decoder.enc_output.proj.{*}", "head.encoder_output.0.{*}"),
            Row("decoder.enc_output.norm.{*}", "head.encoder_output.1.{*}"),
            Row(f"{LAYER}.linear{{k}}.{{*}}", "head.layers.{n}.feed_forward.linear{k}.{*}"),
            Row(f"{LAYER}.norm{{k}}.{{*}}", "head.layers.{n}.norm{k}.{*}"),
            Row(f"{LAYER}.gateway.norm.{{*}}", "head.layers.{n}.gate.norm.{*}"),
            Row("decoder.dec_bbox_head.{n}.{**}", "head.sides.{n}.{**}"),
        ),
        skips=SKIPS,
        own=OWN,
    )


def make_encoder_rows(level: str, ours: str = "necks.0.") -> tuple[Row, ...]:
    """Make the rows of the hybrid encoder.

    Args:
        level: template of a level.
        ours: before our names.
    """
    layer, ours_layer = "encoder.encoder.0.layers.{n}.", f"{ours}layers.{{n}}."
    rows = [
        Row("encoder.input_proj.{n}.conv.{*}", f"{ours}projections.{level}.conv.{{*}}"),
        Row("encoder.input_proj.{n}.norm.{*}", f"{ours}projections.{level}.norm.{{*}}"),
        Row(f"{layer}self_attn.{{**}}", f"{ours_layer}self_attention.{{**}}"),
        Row(f"{layer}linear{{k}}.{{*}}", f"{ours_layer}feed_forward.linear{{k}}.{{*}}"),
        Row(f"{layer}norm{{k}}.{{*}}", f"{ours_layer}norm{{k}}.{{*}}"),
        Row("encoder.lateral_convs.{n}.{**}", f"{ours}laterals.{{n}}.{{**}}"),
        Row("encoder.downsample_convs.{n}.0.cv{k+1}.{**}", f"{ours}downsamples.{{n}}.{{k}}.{{**}}"),
    ]
    for path, blocks in (("fpn_blocks", "down_blocks"), ("pan_blocks", "up_blocks")):
        rows += make_fusion_rows(f"encoder.{path}.{{n}}.", f"{ours}{blocks}.{{n}}.")
    return tuple(rows)


@dataclass(frozen=True)
class FusionNames:
    """Names in a fusion block of another project, without a dot behind them.

    Args:
        split: of the first convolution.
        join: of the last.
        stages: of the two stages in between.
        smooths: of the convolutions that these end with.
    """

    split: str
    join: str
    stages: tuple[str, str]
    smooths: tuple[str, str]


AUTHORS_FUSION = FusionNames("cv1", "cv4", ("cv2.0", "cv3.0"), ("cv2.1", "cv3.1"))

HF_FUSION = FusionNames("conv1", "conv4", ("csp_rep1", "csp_rep2"), ("conv2", "conv3"))


def make_fusion_rows(theirs: str, ours: str, names: FusionNames = AUTHORS_FUSION) -> list[Row]:
    """Make the rows of a fusion block.

    Args:
        theirs: before their names, with its dot.
        ours: before ours.
        names: of its parts.
    """
    rows = [
        Row(f"{theirs}{names.split}.{{**}}", f"{ours}split.{{**}}"),
        Row(f"{theirs}{names.join}.{{**}}", f"{ours}join.{{**}}"),
    ]
    for i, (stage, smooth) in enumerate(zip(names.stages, names.smooths, strict=True)):
        csp, ours_csp = f"{theirs}{stage}.", f"{ours}stages.{i}.0."
        rows += [
            Row(f"{csp}conv{{k}}.{{**}}", f"{ours_csp}conv{{k}}.{{**}}"),
            Row(f"{csp}bottlenecks.{{m}}.conv1.{{**}}", f"{ours_csp}blocks.{{m}}.conv3x3.{{**}}"),
            Row(f"{csp}bottlenecks.{{m}}.conv2.{{**}}", f"{ours_csp}blocks.{{m}}.conv1x1.{{**}}"),
            Row(f"{theirs}{smooth}.{{**}}", f"{ours}stages.{i}.1.{{**}}"),
        ]
    return rows


def make_decoder_rows(level: str) -> tuple[Row, ...]:
    """Make the rows of the decoder that D-FINE and DEIMv2 have in common; ``level`` is the template of a level."""
    return (
        Row("decoder.input_proj.{n}.{**}", f"head.projections.{level}.{{**}}"),
        Row("decoder.enc_score_head.{*}", "head.encoder_classes.{*}"),
        Row("decoder.enc_bbox_head.{**}", "head.encoder_boxes.{**}"),
        Row("decoder.query_pos_head.{**}", "head.query_positions.{**}"),
        Row("decoder.denoising_class_embed.{*}", "head.denoising_classes.{*}"),
        Row(f"{LAYER}.self_attn.{{**}}", "head.layers.{n}.self_attention.{**}"),
        *sampling_rows(f"{LAYER}.cross_attn."),
        Row(f"{LAYER}.gateway.gate.{{*}}", "head.layers.{n}.gate.weights.{*}"),
        Row("decoder.decoder.lqe_layers.{n}.reg_conf.layers.{k}.{*}", "head.qualities.{n}.mlp.layers.{k}.{*}"),
        Row("decoder.dec_score_head.{n}.{*}", "head.classes.{n}.{*}"),
        Row("decoder.pre_bbox_head.{**}", "head.initial_boxes.{**}"),
    )
