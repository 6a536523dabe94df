"""Names of tensors in the files of DINO's authors."""

from __future__ import annotations

from boxwright.weights.projects.deformable import deformable_rows
from boxwright.weights.table import Row, Table


def make_dino_table(first_level: int, num_layers: int) -> Table:
    """Make the table of names of a model whose finest level has this number, with so many decoder layers.

    Heads that all layers share have a copy for each of them there, twice.

    Source: IDEA-Research/DINO faa8520.
    """
    copies = [f"{inside}{{kind}}_embed.{i}" for i in range(num_layers) for inside in ("", "transformer.decoder.")]
    heads = (("class", "classes.0.{*}", "{*}"), ("bbox", "boxes.0.{**}", "{**}"))
    return Table(
        rows=(
            *deformable_rows(first_level),
            Row("transformer.decoder.norm.{*}", "head.norm.{*}"),
            Row("transformer.decoder.ref_point_head.{**}", "head.query_positions.{**}"),
            Row("transformer.tgt_embed.{*}", "head.contents.{*}"),
            Row("transformer.enc_output.{*}", "head.encoder_output.0.{*}"),
            Row("transformer.enc_output_norm.{*}", "head.encoder_output.1.{*}"),
            Row("transformer.enc_out_class_embed.{*}", "head.encoder_classes.{*}"),
            Row("transformer.enc_out_bbox_embed.{**}", "head.encoder_boxes.{**}"),
            Row("label_enc.{*}", "head.denoising_classes.{*}"),
            *(
                Row(tuple(f"{copy.format(kind=kind)}.{rest}" for copy in copies), f"head.{ours}")
                for kind, ours, rest in heads
            ),
        )
    )
