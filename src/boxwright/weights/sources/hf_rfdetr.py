"""RF-DETR of Hugging Face, with and without masks: the names of its authors, beside transformers' configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from boxwright.detector import Detector
from boxwright.layers.plain_vit import HEAD_DIM
from boxwright.queries.mask_branch import MASK_STRIDE
from boxwright.weights.projects.huggingface import (
    ProcessorDefaults,
    read_categories,
    read_preprocessing,
    write_categories,
    write_preprocessing,
)
from boxwright.weights.projects.huggingface_queries import check_fixed
from boxwright.weights.projects.rfdetr import infer_rfdetr, read_rfdetr_parts, write_rfdetr
from boxwright.weights.projects.rfdetr_names import ENCODER, PROJECTOR
from boxwright.weights.projects.rtdetr import dotted_options
from boxwright.weights.projects.written_options import ask_for_options
from boxwright.weights.source import Layout, SourceFiles, SourceModel

__all__ = ["HuggingFaceRFDETR"]

_MODEL, _BACKBONE, _PROCESSOR = "rf_detr", "rf_detr_dinov2", "RfDetrImageProcessor"

_CLASSES = {False: "RfDetrForObjectDetection", True: "RfDetrForInstanceSegmentation"}
"""Classes of transformers without and with masks."""

_HEADS: Mapping[str, tuple[str, int]] = {
    "sa_nheads": ("decoder_self_attention_heads", 8),
    "ca_nheads": ("decoder_cross_attention_heads", 16),
}
"""Arguments of the authors, entries of ``config.json`` and transformers' defaults."""

_OPTIONS: Mapping[str, tuple[str, Any]] = {
    "dropout": ("head.decoder.dropout", 0.1),
    "class_loss_coefficient": ("head.loss_weights.class_weight", 1),
    "bbox_loss_coefficient": ("head.loss_weights.l1_weight", 5),
    "giou_loss_coefficient": ("head.loss_weights.giou_weight", 2),
    "mask_class_loss_coefficient": ("head.loss_weights.mask_weight", 5.0),
    "mask_dice_loss_coefficient": ("head.loss_weights.dice_weight", 5.0),
}
"""Entries that no tensor tells, our options, and transformers' defaults."""

_SIZES: Mapping[str, str] = {
    "d_model": "head.hidden_dim",
    "num_queries": "head.num_queries",
    "group_detr": "head.supervision.num_groups",
    "decoder_layers": "head.decoder.num_layers",
    "decoder_ffn_dim": "head.decoder.feedforward_dim",
    "decoder_n_points": "head.decoder.num_points",
    "c2f_num_blocks": "neck.num_blocks",
}
"""Entries that tensors tell too, and our options."""

_FIXED: Mapping[str, Any] = {
    "activation_function": "silu",
    "decoder_activation_function": "relu",
    "attention_bias": True,
    "hidden_expansion": 0.5,
    "num_feature_levels": 1,
    "mask_downsample_ratio": MASK_STRIDE,
    "segmentation_head_activation_function": "gelu",
}
"""Entries that have one value here."""

_EPS, _USUAL_EPS = 1e-6, 1e-5
"""Of norms in the projector: here and in the authors' code, and in transformers where its configuration states none."""

_FIXED_BACKBONE: Mapping[str, Any] = {
    "model_type": _BACKBONE,
    "hidden_act": "gelu",
    "mlp_ratio": 4,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "apply_layernorm": True,
    "layer_norm_eps": 1e-6,
}

_RESIZING = {"input.antialias": False, "input.resize_floats": True}
"""Resizing of their processor, which is not that of the authors' evaluation."""

_WINDOWS = 4
"""Along each side, where the configuration states none."""


class HuggingFaceRFDETR:
    """Source: transformers 5.24, ``RfDetrForObjectDetection`` and ``RfDetrForInstanceSegmentation``."""

    title = "RF-DETR of Hugging Face, also with masks"
    example = "hf:Roboflow/rf-detr-base"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.config.get("model_type") == _MODEL and files.has(
            "query_feat.weight", f"{PROJECTOR}0.cv1.conv.weight"
        )

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        config, backbone = files.config, files.config.get("backbone_config") or {}
        check_fixed(_FIXED, config, "RF-DETR")
        check_fixed(_FIXED_BACKBONE, backbone, "RF-DETR")
        stated = {theirs: config.get(name, default) for theirs, (name, default) in _HEADS.items()}
        stated |= {"num_windows": backbone.get("num_windows", _WINDOWS)}
        stated |= {"out_feature_indexes": backbone.get("out_indices")}
        notes = list[str]()
        if (eps := config.get("layer_norm_eps", _USUAL_EPS)) != _EPS:
            notes.append(f"norms of its projector have an epsilon of {eps}, and here, as its authors' do, of {_EPS}")
        structure = infer_rfdetr(files.tensors, stated, notes)
        options = structure.overrides | {ours: config.get(name, x) for name, (ours, x) in _OPTIONS.items()}
        # Theirs gives as many detections as queries.
        options["head.max_detections"] = options["head.num_queries"]
        windowed, last = backbone.get("window_block_indexes"), options["backbone.blocks"][-1]
        if windowed is not None and options["backbone.num_windows"] > 1:
            options["backbone.global_blocks"] = [i for i in range(last + 1) if i not in windowed]
        side = options.pop("input.image_size")
        defaults = ProcessorDefaults(name=_PROCESSOR, size={"height": side, "width": side})
        categories, class_notes = read_categories(config, structure.num_classes)
        preprocessing = read_preprocessing(files, defaults)
        return SourceModel(
            recipe=structure.recipe,
            overrides={**options, **preprocessing.overrides, **_RESIZING},
            categories=categories,
            table=structure.table,
            assumptions=(*notes, *class_notes, *preprocessing.assumptions),
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        parts, image = read_rfdetr_parts(detector), detector.input_format
        own = {"input.antialias": image.antialias, "input.resize_floats": image.resize_floats}
        ask_for_options("transformers", {name: (own[name], there) for name, there in _RESIZING.items()})
        options = dotted_options(dict(zip(("backbone", "neck", "head"), parts, strict=True)))
        tensors, num_heads = write_rfdetr(detector, parts), options["head.decoder.num_heads"]
        config = {
            "architectures": [_CLASSES[options["head.masks"]]],
            "model_type": _MODEL,
            "layer_norm_eps": _EPS,
            **_FIXED,
            **{theirs: options[ours] for theirs, ours in _SIZES.items()},
            **{theirs: options[ours] for theirs, (ours, _) in _OPTIONS.items()},
            # Of the hidden layer in the mask branch.
            "intermediate_size": 4 * options["head.hidden_dim"],
            "decoder_self_attention_heads": num_heads,
            "decoder_cross_attention_heads": options["head.decoder.num_sampling_heads"] or num_heads,
            "backbone_config": _write_backbone(tensors, options),
        }
        return Layout(
            tensors=tensors,
            files={
                "config.json": {**config, **write_categories(detector.categories)},
                "preprocessor_config.json": write_preprocessing(image, _PROCESSOR, resizes_floats=True),
            },
        )


def _write_backbone(tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    """Make ``backbone_config``: as many blocks as are of use, in windows but for the global ones.

    Args:
        tensors: by their names.
        options: of the parts, by dotted key.
    """
    width, _, _, patch = tensors[f"{ENCODER}embeddings.patch_embeddings.projection.weight"].shape
    cells = math.isqrt(tensors[f"{ENCODER}embeddings.position_embeddings"].shape[1] - 1)
    stages = [block + 1 for block in options["backbone.blocks"]]
    return {
        **_FIXED_BACKBONE,
        "hidden_size": width,
        "num_attention_heads": width // HEAD_DIM,
        "num_hidden_layers": stages[-1],
        "patch_size": patch,
        "image_size": cells * patch,
        "num_windows": options["backbone.num_windows"],
        "window_block_indexes": [i for i in range(stages[-1]) if i not in options["backbone.global_blocks"]],
        "out_indices": stages,
        "out_features": [f"stage{stage}" for stage in stages],
        # Nothing uses it.
        "use_mask_token": False,
    }
