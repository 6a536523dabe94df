"""Names of tensors in the files of EdgeCrafter's authors, of detectors with and without masks."""

from __future__ import annotations

from boxwright.weights.projects.dfine_names import LAYER, SKIPS, make_decoder_rows, make_encoder_rows
from boxwright.weights.projects.mask_branch_names import make_mask_rows
from boxwright.weights.projects.rtdetr_names import OWN
from boxwright.weights.table import Row, Skip, Table

_BACKBONE = "backbone.backbone."
"""Before the names of the vision transformer."""

ECDET_TOKEN = f"{_BACKBONE}register_token"

ECDET_PERIODS = f"{_BACKBONE}rope_embed.periods"

ECDET_MASKS = "decoder.decoder.segmentation_head."

_OURS = "backbone.vit.body.model."


def make_ecdet_table(num_blocks: int, *, projects_every_level: bool = False) -> Table:
    """Make the table of names of a model.

    Args:
        num_blocks: of its vision transformer that are of use.
        projects_every_level: of the pyramid; the coarsest alone where not.

    Source: Intellindust-AI-Lab/EdgeCrafter 706d037.
    """
    index, level = ("{n}", "c{n+3}") if projects_every_level else ("0", "c5")
    return Table(
        rows=(
            Row(ECDET_TOKEN, f"{_OURS}cls_token"),
            Row(f"{_BACKBONE}patch_embed.{{**}}", f"{_OURS}patch_embed.{{**}}"),
            Row(f"{_BACKBONE}blocks.{{**}}", f"{_OURS}blocks.{{**}}"),
            Row(f"backbone.projector.{index}.{{**}}", f"necks.0.project.{level}.{{**}}"),
            *make_encoder_rows("c{n+3}", "necks.1."),
            *make_decoder_rows("c{n+3}"),
            Row(f"{LAYER}.linear{{k}}.{{*}}", "head.layers.{n}.feed_forward.linear{k}.{*}"),
            Row(f"{LAYER}.norm1.{{*}}", "head.layers.{n}.norm1.{*}"),
            # The gate has the second one.
            Row(f"{LAYER}.norm2.{{*}}", "head.layers.{n}.norm3.{*}"),
            Row(f"{LAYER}.gateway.norm.{{*}}", "head.layers.{n}.gate.norm.{*}"),
            Row("decoder.dec_bbox_head.{n}.{**}", "head.sides.{n}.{**}"),
            *make_mask_rows(ECDET_MASKS),
        ),
        skips=(
            *SKIPS,
            Skip(ECDET_PERIODS, "computed from the width of a head"),
            Skip(f"{_BACKBONE}blocks.{{n+{num_blocks}}}.{{**}}", "behind the last map that is used", before_rows=True),
        ),
        own=OWN,
    )
