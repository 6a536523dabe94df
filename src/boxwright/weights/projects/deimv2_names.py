"""Names of tensors in the files of DEIMv2's authors."""

from __future__ import annotations

from boxwright.weights.operations import Copies
from boxwright.weights.projects.dfine_names import (
    HGNET_ROWS,
    LAYER,
    SKIPS,
    make_decoder_rows,
    make_encoder_rows,
    make_fusion_rows,
)
from boxwright.weights.projects.rtdetr_names import OWN
from boxwright.weights.table import Row, Skip, Table

DEIMV2_BACKBONE = "backbone.dinov3._model."
"""Before the names of the vision transformer of sizes S and M."""

DEIMV2_PERIODS = f"{DEIMV2_BACKBONE}rope_embed.periods"

_STEM = "backbone.stem."


def make_deimv2_table(num_levels: int, *, num_blocks: int = 0, num_shared: int = 0) -> Table:
    """Make the table of names of a model.

    Args:
        num_levels: that its encoder takes; the last is c5, or c4 where it is the only one.
        num_blocks: of its vision transformer that are of use; 0 for an HGNetv2.
        num_shared: layers of the decoder that have one box head, of which theirs stores copies; 0 where each has one.

    Source: Intellindust-AI-Lab/DEIMv2 0fff8d4.
    """
    level = f"c{{n+{6 - num_levels if num_levels > 1 else 4}}}"
    sides = Row("decoder.dec_bbox_head.{n}.{**}", "head.sides.{n}.{**}")
    if num_shared:
        copies = tuple(f"decoder.dec_bbox_head.{i}.{{**}}" for i in range(num_shared))
        sides = Row(copies, "head.sides.0.{**}", Copies())
    return Table(
        rows=(
            *(_STA_ROWS if num_blocks else HGNET_ROWS),
            *(make_encoder_rows(level) if num_levels > 1 else _make_lite_rows(level)),
            *make_decoder_rows(level),
            Row(f"{LAYER}.swish_ffn.w12.{{*}}", "head.layers.{n}.feed_forward.linear1.{*}"),
            Row(f"{LAYER}.swish_ffn.w3.{{*}}", "head.layers.{n}.feed_forward.linear2.{*}"),
            Row(f"{LAYER}.norm{{k}}.scale", "head.layers.{n}.norm{k}.weight"),
            Row(f"{LAYER}.gateway.norm.scale", "head.layers.{n}.gate.norm.weight"),
            sides,
        ),
        skips=(
            *SKIPS,
            Skip(DEIMV2_PERIODS, "computed from the width of a head", before_rows=True),
            Skip(
                f"{DEIMV2_BACKBONE}blocks.{{n+{num_blocks}}}.{{**}}",
                "behind the last map that is used",
                before_rows=True,
            ),
        ),
        own=OWN,
    )


_STA_ROWS = (
    Row(f"{DEIMV2_BACKBONE}{{**}}", "backbone.vit.body.model.{**}"),
    Row("backbone.sta.stem.0.weight", f"{_STEM}begin.0.conv.weight"),
    Row("backbone.sta.stem.1.{*}", f"{_STEM}begin.0.norm.{{*}}"),
    Row("backbone.sta.conv2.0.weight", f"{_STEM}stride8.conv.weight"),
    Row("backbone.sta.conv2.1.{*}", f"{_STEM}stride8.norm.{{*}}"),
    Row("backbone.sta.conv3.1.weight", f"{_STEM}stride16.1.conv.weight"),
    Row("backbone.sta.conv3.2.{*}", f"{_STEM}stride16.1.norm.{{*}}"),
    Row("backbone.sta.conv4.1.weight", f"{_STEM}stride32.1.conv.weight"),
    Row("backbone.sta.conv4.2.{*}", f"{_STEM}stride32.1.norm.{{*}}"),
    Row("backbone.convs.{n}.weight", "backbone.fuse.{n}.conv.weight"),
    Row("backbone.norms.{n}.{*}", "backbone.fuse.{n}.norm.{*}"),
)


def _make_lite_rows(level: str) -> tuple[Row, ...]:
    rows = [
        Row("encoder.input_proj.{n}.{**}", f"necks.0.projections.{level}.{{**}}"),
        Row("encoder.bi_fusion.cv.{**}", "necks.0.add_mean.{**}"),
    ]
    for theirs, ours in (("down_sample1", "extra"), ("down_sample2", "downsamples.0")):
        rows += [
            Row(f"encoder.{theirs}.1.weight", f"necks.0.{ours}.1.conv.weight"),
            Row(f"encoder.{theirs}.2.{{*}}", f"necks.0.{ours}.1.norm.{{*}}"),
        ]
    for theirs, ours in (("fpn_block", "down_blocks"), ("pan_block", "up_blocks")):
        rows += make_fusion_rows(f"encoder.{theirs}.", f"necks.0.{ours}.0.")
    return tuple(rows)
