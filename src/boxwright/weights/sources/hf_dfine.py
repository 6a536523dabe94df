"""D-FINE of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boxwright.detector import Detector
from boxwright.layers.deformable_attention import spread_points
from boxwright.weights.projects.deformable import locate_tensors
from boxwright.weights.projects.detr import count_indices
from boxwright.weights.projects.dfine import infer_dfine_options, read_bins, read_dfine_options
from boxwright.weights.projects.dfine_names import HF_FUSION, make_fusion_rows
from boxwright.weights.projects.huggingface import (
    RTDETR_PROCESSOR,
    read_categories,
    read_preprocessing,
    write_categories,
    write_preprocessing,
)
from boxwright.weights.projects.huggingface_hgnet import check_hgnet_config, make_hgnet_rows, write_hgnet_config
from boxwright.weights.projects.huggingface_queries import (
    DECODER_LAYER,
    ENCODER_LAYER,
    FIXED_ENTRIES,
    STATED_OPTIONS,
    STATED_SIZES,
    check_fixed,
    count_predicting_layers,
    list_predicting_weights,
    make_layer_rows,
    make_predictor_rows,
    make_projection_rows,
    make_selection_rows,
)
from boxwright.weights.projects.rtdetr_authors import STRIDES, make_scales, read_points
from boxwright.weights.projects.rtdetr_names import OWN, sampling_rows
from boxwright.weights.projects.written_options import check_options
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Skip, Table

__all__ = ["HuggingFaceDFINE"]

_OPTIONS: Mapping[str, tuple[str, Any]] = {
    **STATED_OPTIONS,
    "reg_scale": ("head.bin_scale", 4.0),
    "weight_loss_fgl": ("head.loss_weights.fgl_weight", 0.15),
    "weight_loss_ddf": ("head.loss_weights.ddf_weight", 1.5),
}
"""Entries of ``config.json`` that tensors do not tell, our options, and transformers' defaults."""

_SIZES: Mapping[str, str] = {**STATED_SIZES, "max_num_bins": "head.num_bins"}
"""Entries that tensors tell too, and our options."""

_FIXED: Mapping[str, Any] = {
    **FIXED_ENTRIES,
    "layer_scale": 1,
    "eval_idx": -1,
    "top_prob_values": 4,
    "lqe_hidden_dim": 64,
    "lqe_layers": 2,
    "up": 0.5,
}
"""Entries that have one value here."""

_SCALE = "model.decoder.layers.0.encoder_attn.num_points_scale"

_GATED = "model.decoder.layers.0.mlp.gate_proj.weight"
"""A name in the files of DEIMv2."""

_LISTS = ("layers", "classes", "sides", "qualities")
"""Lists in the head, with a module for each layer."""


class HuggingFaceDFINE:
    """Source: transformers 5.24, ``DFineForObjectDetection``."""

    title = "D-FINE of Hugging Face"
    example = "hf:ustc-community/dfine-xlarge-coco"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        begins = files.has("model.encoder_input_proj.0.0.weight") or files.has(_GATED)
        return begins and files.has("model.decoder.pre_bbox_head.layers.0.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        config, assumptions = files.config, []
        if files.has(_GATED):
            raise ValueError(
                "transformers' DEIMv2 is another network than its authors', with a layer in front of the selection of "
                "queries and other activations, and has no counterpart here; a file of the authors does"
            )
        num_levels = count_indices(files.tensors, "model.encoder_input_proj.{n}.0.weight")
        check_fixed({**_FIXED, **_level_entries(num_levels)}, config, "D-FINE")
        check_hgnet_config(config.get("backbone_config") or {})
        table = _make_table(num_levels)
        located = locate_tensors(table, files)
        size, options = infer_dfine_options(located)
        given = {ours: config.get(theirs, default) for theirs, (ours, default) in _OPTIONS.items()}
        # Theirs evaluates every layer and gives as many detections as queries.
        options = {**given, **options, "head.max_detections": given["head.num_queries"]}
        options |= {"head.decoder.eval_layers": None, "head.decoder.activation": "relu"}
        options |= read_bins(files.tensors, "model.decoder.") | read_points(files.tensors, _SCALE)
        if not config:
            assumptions.append(
                "no config.json: 8 attention heads in the encoder, 300 queries and bilinear sampling; neck.num_heads, "
                "head.num_queries and head.decoder.sampling_method say otherwise"
            )
        categories, class_notes = read_categories(config, located.side("head.classes.0.weight"))
        preprocessing = read_preprocessing(files, RTDETR_PROCESSOR)
        return SourceModel(
            recipe=f"dfine_{size}",
            overrides={**options, **preprocessing.overrides},
            categories=categories,
            table=table,
            assumptions=(*assumptions, *class_notes, *preprocessing.assumptions),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        options = read_dfine_options(detector)
        num_levels, num_layers = len(options["backbone.levels"]), count_predicting_layers(options)
        weights = list_predicting_weights(detector, options, _LISTS)
        check_options(
            {
                "head.decoder.activation": (options["head.decoder.activation"], "relu"),
                "head.decoder.reference_encoding": (options["head.decoder.reference_encoding"], "wide"),
                "head.decoder.design": (options["head.decoder.design"], "standard"),
            }
        )
        points = spread_points(options["head.decoder.num_points"], num_levels)
        values = {theirs: options[ours] for theirs, (ours, _) in _OPTIONS.items()}
        values |= {theirs: options[ours] for theirs, ours in _SIZES.items()}
        values |= {"decoder_n_points": list(points), "decoder_layers": num_layers}
        has_affine = any(".lab." in name for name in weights)
        backbone = write_hgnet_config(options["backbone.model"], options["backbone.levels"], has_affine=has_affine)
        config = {
            "architectures": ["DFineForObjectDetection"],
            "model_type": "d_fine",
            **_FIXED,
            **_level_entries(num_levels),
            **values,
            "depth_mult": options["neck.num_blocks"] / 3,
            "encoder_in_channels": backbone["hidden_sizes"][-num_levels:],
            "decoder_in_channels": [options["neck.hidden_dim"]] * num_levels,
            "freeze_backbone_batch_norms": options["backbone.norm"] == "frozen",
            "backbone_config": backbone,
        }
        tensors = _make_table(num_levels, for_writing=True).write(weights).tensors
        tensors |= make_scales(options, num_layers, _SCALE, num_levels)
        tensors |= {f"model.decoder.{name}": _one(config[name]) for name in ("up", "reg_scale")}
        return Layout(
            tensors=tensors,
            files={
                "config.json": {**config, **write_categories(detector.categories)},
                "preprocessor_config.json": write_preprocessing(detector.input_format, "RTDetrImageProcessor"),
            },
        )


def _one(value: float) -> Tensor:
    return torch.tensor([value])


def _level_entries(num_levels: int) -> dict[str, Any]:
    """Make the entries of ``config.json`` that follow from the number of levels."""
    return {
        "num_feature_levels": num_levels,
        "feat_strides": list(STRIDES[-num_levels:]),
        "encode_proj_layers": [num_levels - 1],
    }


def _make_table(num_levels: int, *, for_writing: bool = False) -> Table:
    """Make the table of names.

    Args:
        num_levels: that the encoder takes; the last is c5.
        for_writing: with today's names only, and not those of older files.
    """
    layer, ours_layer = DECODER_LAYER, "head.layers.{n}."
    rows = [
        *make_hgnet_rows("model.backbone.model."),
        *make_projection_rows(f"c{{n+{6 - num_levels}}}"),
        *make_layer_rows(ENCODER_LAYER, "necks.0.layers.{n}.", last_norm=2),
        Row("model.encoder.lateral_convs.{n}.{**}", "necks.0.laterals.{n}.{**}"),
        Row("model.encoder.downsample_convs.{n}.conv{k+1}.{**}", "necks.0.downsamples.{n}.{k}.{**}"),
        *make_fusion_rows("model.encoder.fpn_blocks.{n}.", "necks.0.down_blocks.{n}.", HF_FUSION),
        *make_fusion_rows("model.encoder.pan_blocks.{n}.", "necks.0.up_blocks.{n}.", HF_FUSION),
        *make_selection_rows(),
        *make_layer_rows(layer, ours_layer, last_norm=3),
        *sampling_rows(f"{layer}encoder_attn."),
        Row(f"{layer}gateway.gate.{{*}}", f"{ours_layer}gate.weights.{{*}}"),
        Row(f"{layer}gateway.norm.{{*}}", f"{ours_layer}gate.norm.{{*}}"),
        Row("model.decoder.lqe_layers.{n}.reg_conf.layers.{k}.{*}", "head.qualities.{n}.mlp.layers.{k}.{*}"),
        Row("model.decoder.pre_bbox_head.{**}", "head.initial_boxes.{**}"),
        *make_predictor_rows("sides", for_writing=for_writing),
    ]
    skips = (
        Skip(f"{layer}encoder_attn.num_points_scale", "the numbers of points, which are options here"),
        Skip("model.decoder.up", "a constant of the bins"),
        Skip("model.decoder.reg_scale", "a constant of the bins, which is an option here"),
    )
    return Table(rows=rows, skips=skips, own=OWN)
