"""Names of tensors in the files of DINO's authors."""

from __future__ import annotations

from boxwright.weights.projects.deformable import attention_rows
from boxwright.weights.table import Row, Table

_ENCODER, _DECODER = "transformer.encoder.layers.{n}", "transformer.decoder.layers.{n}"


def make_dino_table(first_level: int, num_layers: int) -> Table:
    """Make the table of names of a model whose finest level has this number, with so many decoder layers.

    Heads that all layers share have a copy for each of them there, twice.

    Source: IDEA-Research/DINO faa8520.
    """
    copies = [f"{inside}{{kind}}_embed.{i}" for i in range(num_layers) for inside in ("", "transformer.decoder.")]
    heads = (("class", "classes.0.{*}", "{*}"), ("bbox", "boxes.0.{**}", "{**}"))
    return Table(
        rows=(
            Row("backbone.0.body.{**}", "backbone.{**}"),
            Row("input_proj.{n}.{**}", f"necks.0.projections.c{{n+{first_level}}}.{{**}}"),
            Row("transformer.level_embed", "necks.0.level_embedding"),
            *attention_rows(f"{_ENCODER}.self_attn", "necks.0.layers.{n}.self_attention"),
            Row(f"{_ENCODER}.norm{{k}}.{{*}}", "necks.0.layers.{n}.norm{k}.{*}"),
            Row(f"{_ENCODER}.linear{{k}}.{{*}}", "necks.0.layers.{n}.feed_forward.linear{k}.{*}"),
            Row(f"{_DECODER}.self_attn.{{**}}", "head.layers.{n}.self_attention.{**}"),
            *attention_rows(f"{_DECODER}.cross_attn", "head.layers.{n}.cross_attention"),
            # Numbered in the order of their definition there, in that of their execution here.
            Row(f"{_DECODER}.norm2.{{*}}", "head.layers.{n}.norm1.{*}"),
            Row(f"{_DECODER}.norm1.{{*}}", "head.layers.{n}.norm2.{*}"),
            Row(f"{_DECODER}.norm3.{{*}}", "head.layers.{n}.norm3.{*}"),
            Row(f"{_DECODER}.linear{{k}}.{{*}}", "head.layers.{n}.feed_forward.linear{k}.{*}"),
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
