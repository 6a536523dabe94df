"""Names of tensors in the files of RT-DETR's authors, version 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from boxwright.weights.table import Row, Skip, Table

Version = Literal[1, 2]

_ENCODER, _DECODER = "encoder.encoder.0.layers.{n}", "decoder.decoder.layers.{n}"

_SKIPS = (
    Skip("decoder.anchors", "computed from the size of the input"),
    Skip("decoder.valid_mask", "computed from the size of the input"),
    Skip("decoder.decoder.layers.{n}.cross_attn.num_points_scale", "the numbers of points, which are options here"),
)


OWN = (Skip("head.denoising_classes.weight", "of training alone, and not there without denoising"),)


def make_table(version: Version) -> Table:
    """Make the table of names of a version.

    Source: lyuwenyu/RT-DETR 068dfde, rtdetr_pytorch and rtdetrv2_pytorch.
    """
    return Table(
        rows=(*backbone_rows("backbone.", "backbone."), *_encoder_rows(version), *_decoder_rows(version)),
        skips=_SKIPS if version == 2 else (),
        own=OWN,
    )


def backbone_rows(theirs: str, ours: str) -> Sequence[Row]:
    """List the rows of ``PResNet`` and of ``HGNetv2``, which is timm's here.

    Args:
        theirs: before their names.
        ours: before ours.
    """
    return *_resnet_rows(theirs, ours), *_hgnet_rows(theirs, f"{ours}body.")


def _hgnet_rows(theirs: str, ours: str) -> Sequence[Row]:
    block, ours_block = f"{theirs}stages.{{s}}.blocks.{{n}}.", f"{ours}stages_{{s}}.blocks.{{n}}."
    # Convolutions of 2 x 2 have a layer before them there that pads.
    padded = ("stem2a", "stem2b")
    return (
        *(Row(f"{theirs}stem.{name}.conv.1.{{*}}", f"{ours}stem.{name}.conv.{{*}}") for name in padded),
        *(Row(f"{theirs}stem.{name}.bn.{{*}}", f"{ours}stem.{name}.bn.{{*}}") for name in padded),
        *(Row(f"{theirs}stem.{name}.{{**}}", f"{ours}stem.{name}.{{**}}") for name in ("stem1", "stem3", "stem4")),
        Row(f"{theirs}stages.{{s}}.downsample.{{**}}", f"{ours}stages_{{s}}.downsample.{{**}}"),
        Row(f"{block}layers.{{k}}.{{**}}", f"{ours_block}layers.{{k}}.{{**}}"),
        Row(f"{block}aggregation_squeeze_conv.{{**}}", f"{ours_block}aggregation.0.{{**}}"),
        Row(f"{block}aggregation_excitation_conv.{{**}}", f"{ours_block}aggregation.1.{{**}}"),
    )


def _resnet_rows(theirs: str, ours: str) -> Sequence[Row]:
    block, ours_block = f"{theirs}res_layers.{{s}}.blocks.{{n}}.", f"{ours}stages.c{{s+2}}.{{n}}."
    branches = (Row(f"{block}branch2{'abc'[k]}.{{**}}", f"{ours_block}conv{k + 1}.{{**}}") for k in range(3))
    return (
        Row(f"{theirs}conv1.conv1_{{k+1}}.{{**}}", f"{ours}stem.{{k}}.{{**}}"),
        *branches,
        # The first stage projects without a pool before it.
        Row(f"{block}short.conv.{{*}}", f"{ours_block}shortcut.conv.{{*}}"),
        Row(f"{block}short.norm.{{*}}", f"{ours_block}shortcut.norm.{{*}}"),
        Row(f"{block}short.conv.conv.{{*}}", f"{ours_block}shortcut.1.conv.{{*}}"),
        Row(f"{block}short.conv.norm.{{*}}", f"{ours_block}shortcut.1.norm.{{*}}"),
    )


def fusion_rows(theirs: str) -> Sequence[Row]:
    """List the rows of the paths down and up, which transformers names alike.

    Args:
        theirs: before their names.
    """
    rows = [
        Row(f"{theirs}lateral_convs.{{n}}.{{**}}", "necks.0.laterals.{n}.{**}"),
        Row(f"{theirs}downsample_convs.{{n}}.{{**}}", "necks.0.downsamples.{n}.{**}"),
    ]
    for path, ours in (("fpn_blocks", "necks.0.down_blocks"), ("pan_blocks", "necks.0.up_blocks")):
        block = f"{theirs}{path}.{{n}}."
        rows += [
            Row(f"{block}conv1.{{**}}", f"{ours}.{{n}}.conv1.{{**}}"),
            Row(f"{block}conv2.{{**}}", f"{ours}.{{n}}.conv2.{{**}}"),
            Row(f"{block}conv3.{{**}}", f"{ours}.{{n}}.expand.{{**}}"),
            Row(f"{block}bottlenecks.{{m}}.conv1.{{**}}", f"{ours}.{{n}}.blocks.{{m}}.conv3x3.{{**}}"),
            Row(f"{block}bottlenecks.{{m}}.conv2.{{**}}", f"{ours}.{{n}}.blocks.{{m}}.conv1x1.{{**}}"),
        ]
    return rows


def sampling_rows(theirs: str) -> Sequence[Row]:
    """List the rows of deformable attention, which transformers names alike.

    Args:
        theirs: before their names, with ``{n}`` for the layer.
    """
    ours = "head.layers.{n}.cross_attention."
    names = {"sampling_offsets": "sampling_offsets", "attention_weights": "attention_weights"}
    names |= {"value_proj": "value_projection", "output_proj": "output_projection"}
    return [Row(f"{theirs}{name}.{{*}}", f"{ours}{our_name}.{{*}}") for name, our_name in names.items()]


def _encoder_rows(version: Version) -> Sequence[Row]:
    conv, norm = ("0", "1") if version == 1 else ("conv", "norm")
    return (
        Row(f"encoder.input_proj.{{n}}.{conv}.{{*}}", "necks.0.projections.c{n+3}.conv.{*}"),
        Row(f"encoder.input_proj.{{n}}.{norm}.{{*}}", "necks.0.projections.c{n+3}.norm.{*}"),
        Row(f"{_ENCODER}.self_attn.{{**}}", "necks.0.layers.{n}.self_attention.{**}"),
        Row(f"{_ENCODER}.linear{{k}}.{{*}}", "necks.0.layers.{n}.feed_forward.linear{k}.{*}"),
        Row(f"{_ENCODER}.norm{{k}}.{{*}}", "necks.0.layers.{n}.norm{k}.{*}"),
        *fusion_rows("encoder."),
    )


def _decoder_rows(version: Version) -> Sequence[Row]:
    linear, norm = ("0", "1") if version == 1 else ("proj", "norm")
    return (
        Row("decoder.input_proj.{n}.{**}", "head.projections.c{n+3}.{**}"),
        Row(f"decoder.enc_output.{linear}.{{*}}", "head.encoder_output.0.{*}"),
        Row(f"decoder.enc_output.{norm}.{{*}}", "head.encoder_output.1.{*}"),
        Row("decoder.enc_score_head.{*}", "head.encoder_classes.{*}"),
        Row("decoder.enc_bbox_head.{**}", "head.encoder_boxes.{**}"),
        Row("decoder.query_pos_head.{**}", "head.query_positions.{**}"),
        Row("decoder.denoising_class_embed.{*}", "head.denoising_classes.{*}"),
        Row(f"{_DECODER}.self_attn.{{**}}", "head.layers.{n}.self_attention.{**}"),
        *sampling_rows(f"{_DECODER}.cross_attn."),
        Row(f"{_DECODER}.linear{{k}}.{{*}}", "head.layers.{n}.feed_forward.linear{k}.{*}"),
        Row(f"{_DECODER}.norm{{k}}.{{*}}", "head.layers.{n}.norm{k}.{*}"),
        Row("decoder.dec_score_head.{n}.{*}", "head.classes.{n}.{*}"),
        Row("decoder.dec_bbox_head.{n}.{**}", "head.boxes.{n}.{**}"),
    )
