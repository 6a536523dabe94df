"""Names of tensors of the mask branch of queries, which RF-DETR's and EdgeCrafter's authors have in common."""

from __future__ import annotations

from boxwright.weights.operations import Pointwise
from boxwright.weights.table import Row


def make_mask_rows(theirs: str) -> tuple[Row, ...]:
    """Make the rows of the branch.

    Args:
        theirs: before their names, with its dot.

    Source: ``SegmentationHead`` of roboflow/rf-detr 35ac6ab and of Intellindust-AI-Lab/EdgeCrafter 706d037.
    """
    ours, block = "head.masks.", "blocks.{n}."
    return (
        Row(f"{theirs}bias", f"{ours}bias"),
        Row(f"{theirs}{block}dwconv.{{*}}", f"{ours}{block}depthwise.{{*}}"),
        Row(f"{theirs}{block}norm.{{*}}", f"{ours}{block}norm.{{*}}"),
        Row(f"{theirs}{block}pwconv1.{{*}}", f"{ours}{block}pointwise.{{*}}", Pointwise()),
        Row(f"{theirs}spatial_features_proj.{{*}}", f"{ours}cell_projection.{{*}}"),
        Row(f"{theirs}query_features_block.norm_in.{{*}}", f"{ours}query_norm.{{*}}"),
        *(
            # Between the two is the activation.
            Row(f"{theirs}query_features_block.layers.{2 * i}.{{*}}", f"{ours}query_mlp.layers.{i}.{{*}}")
            for i in range(2)
        ),
        Row(f"{theirs}query_features_proj.{{*}}", f"{ours}query_projection.{{*}}"),
    )
