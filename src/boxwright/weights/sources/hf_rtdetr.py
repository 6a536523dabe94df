"""RT-DETR and RT-DETRv2 of Hugging Face: one table of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boxwright.backbones.resnet_vd import BLOCKS_OF_VD
from boxwright.detector import Detector
from boxwright.layers.deformable_attention import spread_points
from boxwright.weights.projects.huggingface import (
    RTDETR_PROCESSOR,
    read_categories,
    read_preprocessing,
    write_categories,
    write_preprocessing,
)
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
from boxwright.weights.projects.rtdetr import NUM_LEVELS, infer_options, nearest_recipe, read_options
from boxwright.weights.projects.rtdetr_authors import make_scales
from boxwright.weights.projects.rtdetr_names import OWN, fusion_rows, sampling_rows
from boxwright.weights.projects.written_options import check_options
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Skip, Table

__all__ = ["HuggingFaceRTDETR"]

_SIZES: Mapping[str, str] = {**STATED_SIZES, "decoder_layers": "head.decoder.num_layers"}
"""Entries of ``config.json`` that tensors tell too, and our options."""

_FIXED: Mapping[str, Any] = {
    **FIXED_ENTRIES,
    "feat_strides": [8, 16, 32],
    "encode_proj_layers": [2],
    "num_feature_levels": NUM_LEVELS,
    "decoder_n_levels": NUM_LEVELS,
}
"""Entries that have one value here."""

_FIXED_BACKBONE: Mapping[str, Any] = {
    "model_type": "rt_detr_resnet",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}

_BLOCKS = 3
"""RepVGG blocks per fusion, which transformers always has."""


_VERSION_2, _SCALE = "rt_detr_v2", "model.decoder.layers.0.encoder_attn.n_points_scale"


class HuggingFaceRTDETR:
    """Source: transformers 5.24, ``RTDetrForObjectDetection`` and ``RTDetrV2ForObjectDetection``."""

    title = "RT-DETR of Hugging Face"
    example = "hf:PekingU/rtdetr_r50vd"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        names = "model.encoder_input_proj.0.0.weight", "model.enc_score_head.weight"
        return files.has(*names) and not files.has("model.decoder.pre_bbox_head.layers.0.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        config, table, assumptions = files.config, _make_table(), []
        _check_config(config)
        located = {ours: files.tensors[theirs] for ours, theirs in table.locate(files.tensors).items()}
        options = infer_options(located)
        options |= {ours: config.get(theirs, default) for theirs, (ours, default) in STATED_OPTIONS.items()}
        # Theirs evaluates every layer and gives as many detections as queries.
        options |= {"head.decoder.eval_layers": None, "head.max_detections": options["head.num_queries"]}
        if "head.denoising_classes.weight" not in located:
            options["head.denoising.num_queries"] = 0
        if not config:
            assumptions.append(
                "no config.json: 8 attention heads, 300 queries and bilinear sampling; neck.num_heads, "
                "head.decoder.num_heads, head.num_queries and head.decoder.sampling_method say otherwise"
            )
        categories, class_notes = read_categories(config, len(located["head.classes.0.bias"]))
        preprocessing = read_preprocessing(files, RTDETR_PROCESSOR)
        return SourceModel(
            recipe=nearest_recipe(options, "rtdetrv2" if _is_version_2(files) else "rtdetr"),
            overrides={**options, **preprocessing.overrides},
            categories=categories,
            table=table,
            assumptions=(*assumptions, *class_notes, *preprocessing.assumptions),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout: version 2 where its recipe is, or it has what version 1 does not."""
        options = read_options(detector)
        config = _write_config(options, is_version_2=_needs_version_2(options) or _is_called_version_2(detector))
        processor = write_preprocessing(detector.input_format, "RTDetrImageProcessor")
        tensors = (
            _make_table(for_writing=True)
            .write(list_predicting_weights(detector, options, ("layers", "classes", "boxes")))
            .tensors
        )
        if config["model_type"] == _VERSION_2:
            tensors |= make_scales(options, config["decoder_layers"], _SCALE)
        return Layout(
            tensors=tensors,
            files={
                "config.json": {**config, **write_categories(detector.categories)},
                "preprocessor_config.json": processor,
            },
        )


def _is_version_2(files: SourceFiles) -> bool:
    return _SCALE in files.tensors or bool(files.config.get("model_type") == _VERSION_2)


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse variants that there is no counterpart of here."""
    backbone = config.get("backbone_config") or {}
    if config.get("backbone") or config.get("use_timm_backbone"):
        raise ValueError(f"its backbone is {config.get('backbone')} of timm; Boxwright's RT-DETR has transformers' own")
    check_fixed(_FIXED, config, "RT-DETR")
    check_fixed(_FIXED_BACKBONE, backbone, "RT-DETR")


def _needs_version_2(options: Mapping[str, Any]) -> bool:
    method, scale = options["head.decoder.sampling_method"], options["head.decoder.offset_scale"]
    return bool(method != "default" or scale != 0.5)


def _is_called_version_2(detector: Detector) -> bool:
    recipe: str | None = None if detector.passport is None else detector.passport.recipe
    return recipe is not None and recipe.startswith("rtdetrv2")


def _write_config(options: Mapping[str, Any], *, is_version_2: bool) -> dict[str, Any]:
    """Make ``config.json`` but for the classes.

    Raises:
        ValueError: options that transformers does not have, in one line.
    """
    points = spread_points(options["head.decoder.num_points"], NUM_LEVELS)
    check_options(
        {
            "neck.num_blocks": (options["neck.num_blocks"], _BLOCKS),
            "head.decoder.num_points": (list(points), [points[0]] * NUM_LEVELS),
            "head.decoder.activation": (options["head.decoder.activation"], "relu"),
            "head.decoder.reference_encoding": (options["head.decoder.reference_encoding"], "wide"),
        }
    )
    values = {theirs: options[ours] for theirs, (ours, _) in STATED_OPTIONS.items()}
    values |= {theirs: options[ours] for theirs, ours in _SIZES.items()}
    values |= {"decoder_n_points": points[0], "decoder_layers": count_predicting_layers(options)}
    if not is_version_2:
        del values["decoder_method"], values["decoder_offset_scale"]
    backbone = _write_backbone(options)
    return {
        "architectures": ["RTDetrV2ForObjectDetection" if is_version_2 else "RTDetrForObjectDetection"],
        "model_type": _VERSION_2 if is_version_2 else "rt_detr",
        **values,
        "encoder_in_channels": backbone["hidden_sizes"][1:],
        "decoder_in_channels": [options["neck.hidden_dim"]] * NUM_LEVELS,
        "freeze_backbone_batch_norms": options["backbone.norm"] == "frozen",
        "backbone_config": backbone,
    }


def _write_backbone(options: Mapping[str, Any]) -> dict[str, Any]:
    depth, width = options["backbone.depth"], options["backbone.width"]
    widest = width * (1 if depth < 50 else 4)
    return {
        **_FIXED_BACKBONE,
        "depths": list(BLOCKS_OF_VD[depth]),
        "embedding_size": width,
        "hidden_sizes": [widest * 2**stage for stage in range(4)],
        "layer_type": "basic" if depth < 50 else "bottleneck",
        "out_features": ["stage2", "stage3", "stage4"],
        "out_indices": [2, 3, 4],
    }


def _make_table(*, for_writing: bool = False) -> Table:
    """Make the table of names.

    Args:
        for_writing: with today's names only, and not those of older files of version 2.
    """
    decoder, ours_decoder = DECODER_LAYER, "head.layers.{n}."
    rows = [
        *_backbone_rows(),
        *make_projection_rows("c{n+3}"),
        *make_layer_rows(ENCODER_LAYER, "necks.0.layers.{n}.", last_norm=2),
        *fusion_rows("model.encoder."),
        *make_selection_rows(),
        *make_layer_rows(decoder, ours_decoder, last_norm=3),
        *sampling_rows(f"{decoder}encoder_attn."),
        Row(f"{decoder}encoder_attn_layer_norm.{{*}}", f"{ours_decoder}norm2.{{*}}"),
        # Version 2 has these twice, and older files the second.
        *make_predictor_rows("boxes", for_writing=for_writing),
    ]
    points = Skip(f"{decoder}encoder_attn.n_points_scale", "the number of points, which is an option here")
    return Table(rows=rows, skips=[points], own=OWN)


def _backbone_rows() -> list[Row]:
    theirs, block = "model.backbone.model.", "model.backbone.model.encoder.stages.{s}.layers.{n}."
    ours = "backbone.stages.c{s+2}.{n}."
    rows = []
    for name, our_name in (("convolution", "conv"), ("normalization", "norm")):
        rows += [
            Row(f"{theirs}embedder.embedder.{{k}}.{name}.{{*}}", f"backbone.stem.{{k}}.{our_name}.{{*}}"),
            Row(f"{block}layer.{{k}}.{name}.{{*}}", f"{ours}conv{{k+1}}.{our_name}.{{*}}"),
            # The first stage projects without a pool before it.
            Row(f"{block}shortcut.{name}.{{*}}", f"{ours}shortcut.{our_name}.{{*}}"),
            Row(f"{block}shortcut.1.{name}.{{*}}", f"{ours}shortcut.1.{our_name}.{{*}}"),
        ]
    return rows
