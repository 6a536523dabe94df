"""Recipes and checkpoints of earlier releases: names of options and of tensors then, and now.

Tables, applied where a checkpoint is read. In a recipe of the user's own, or on the command line, an earlier name is an
error that says the present one.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any

VERSION = 5
"""The format of checkpoints that this release writes; it reads those since 1."""

Names = Mapping[str, str]

BOTNET: Names = {"shortcut_relu": "block.shortcut_activation"}
"""Options of BoTNet as they were called until format 3, and as they are called now."""

TWO_STAGE: Names = {
    "rpn_convs": "rpn.num_convs",
    "anchor_scale": "rpn.anchor_scale",
    "num_candidates": "rpn.pre_nms_top_k",
    "num_proposals": "rpn.post_nms_top_k",
    "rpn_nms_threshold": "rpn.nms_threshold",
    "region_features": "roi.extractor",
    "level_epsilon": "roi.level_epsilon",
    "fusion": "roi.fusion",
    "coarsest_region_stride": "roi.coarsest_stride",
    "num_samples": "roi.num_samples",
    "box_head": "boxes.head",
    "hidden_dim": "boxes.hidden_dim",
    "score_threshold": "detection.score_threshold",
    "nms_threshold": "detection.nms_threshold",
    "max_detections": "detection.max_detections",
}

FASTER_RCNN: Names = {**TWO_STAGE, "consistent_weight": "boxes.aux_weight"}

MASK_RCNN: Names = {
    **FASTER_RCNN,
    "mask_convs": "mask.num_convs",
    "mask_norm": "mask.norm",
    "mask_dim": "mask.hidden_dim",
    "fully_connected_masks": "mask.fully_connected",
}

DENSE: Names = {
    "alpha": "focal.alpha",
    "gamma": "focal.gamma",
    "score_threshold": "detection.score_threshold",
    "nms_threshold": "detection.nms_threshold",
    "max_candidates": "detection.pre_nms_top_k",
    "pre_nms_top_k": "detection.pre_nms_top_k",
    "max_detections": "detection.max_detections",
}

ANCHOR_OPTIONS: Names = {"anchor_scale": "anchors.scale", "octave_steps": "anchors.octave_steps"}

QUERY_LOSSES: Names = {name: f"loss_weights.{name}" for name in ("class_weight", "l1_weight", "giou_weight")}

DECODER: Names = {name: f"decoder.{name}" for name in ("num_layers", "num_heads", "feedforward_dim", "dropout")}

DEFORMABLE_DECODER: Names = {**DECODER, "num_points": "decoder.num_points", "sampling": "decoder.sampling"}

DENOISING: Names = {
    "num_denoising": "denoising.num_queries",
    "label_noise": "denoising.label_noise",
    "box_noise": "denoising.box_noise",
}

QUERIES: Names = {"class_loss": "supervision.class_loss"}

ENCODER_QUERIES: Names = {**QUERIES, "eval_layers": "decoder.eval_layers"}
"""Options of query heads until format 4."""

PARTS: Mapping[str, Mapping[str, Names]] = {
    "backbone": {"botnet": BOTNET},
    "neck": {"augfpn": {"ratios": "pool_ratios"}},
    "head": {
        "faster_rcnn": FASTER_RCNN,
        "mask_rcnn": MASK_RCNN,
        "cascade_rcnn": TWO_STAGE,
        "retinanet": {
            **DENSE,
            **ANCHOR_OPTIONS,
            "ratios": "anchors.aspect_ratios",
            "round_anchors": "anchors.whole_pixels",
        },
        "fcos": DENSE,
        "efficientdet": {
            **DENSE,
            **ANCHOR_OPTIONS,
            "aspects": "anchors.aspect_ratios",
            "soft_nms": "detection.soft_nms",
        },
        "detr": {**DECODER, **QUERY_LOSSES, "pre_norm": "decoder.pre_norm"},
        "deformable_detr": {**DEFORMABLE_DECODER, **QUERY_LOSSES},
        "rtdetr": {**DEFORMABLE_DECODER, **DENOISING, **QUERY_LOSSES, **ENCODER_QUERIES},
    },
}
"""Options of parts by slot and name: as they were called in format 1, and as they are called now, both dotted."""

OPTIONS_OF_SECTIONS: Mapping[str, Names] = {
    "input": {},
    "augment": {},
    "train": {
        "accumulate": "batches.accumulate_steps",
        "multi_scale": "batches.multi_scale",
        "optimizer": "optimizer.name",
        "momentum": "optimizer.momentum",
        "weight_decay": "optimizer.weight_decay",
        "norm_decay": "optimizer.norm_decay",
        "lr_factors": "optimizer.lr_factors",
        "clip_norm": "optimizer.max_grad_norm",
        "warmup_steps": "schedule.warmup_steps",
        "decay": "schedule.decay",
        "decay_share": "schedule.decay_fraction",
        "final_lr": "schedule.final_lr_ratio",
        "light_share": "schedule.no_aug_fraction",
        "ema": "ema_decay",
        "evaluations": "schedule.evaluations",
        "precision": "runtime.precision",
        "device": "runtime.device",
        "workers": "runtime.workers",
        "seed": "runtime.seed",
    },
}
"""Options of sections, likewise."""

PARTS_UNTIL: Mapping[int, Mapping[str, Mapping[str, Names]]] = {
    3: {"backbone": {"botnet": BOTNET}},
    4: {
        "head": {
            "detr": {"no_object_weight": "loss_weights.no_object_weight"},
            "deformable_detr": QUERIES,
            "rtdetr": ENCODER_QUERIES,
            "dfine": ENCODER_QUERIES,
            "dino": ENCODER_QUERIES,
        }
    },
}
"""Options of parts, as they were called until a format, and as they are called now."""

SECTIONS_OF_2: Mapping[str, Names] = {"train": {"evaluations": "schedule.evaluations"}}
"""Options of sections as they were called in format 2, and as they are called now."""

VALUES: Mapping[str, Mapping[Hashable, str]] = {
    "input.resize": {"centre_crop": "center_crop"},
    "backbone.botnet.block.shortcut_activation": {False: "none", True: "attention"},
}
"""Values that are others now, by the address of the option in a recipe (of a part: ``backbone.NAME.OPTION``)."""

DEFAULTS: Mapping[str, Any] = {}
"""Options that format 1 did not have and whose default is another way than things were then: their address in a recipe
(of a part: ``head.NAME.OPTION``) and the value that means what was done then."""

TENSORS: Mapping[str, str] = {
    r"^head\.raw\.": "head.aux_boxes.",
    r"^head\.(.*\.)?widths\.": r"head.\1input_projection.",
}
"""Names of tensors: patterns, and their replacements."""


def part_names(slot: str, name: str) -> Names:
    """Look up the options of a part that have other names now."""
    return PARTS.get(slot, {}).get(name, MappingProxyType({}))


def section_names(section: str) -> Names:
    """Look up the options of a section that have other names now."""
    return OPTIONS_OF_SECTIONS.get(section, MappingProxyType({}))


def upgrade_checkpoint(content: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the content of a checkpoint to the present format; of the present one, return it as it is."""
    upgraded: dict[str, Any] = {"passport": None, **content, "version": VERSION}
    if content["version"] == 1:
        upgraded["recipe"] = upgrade_recipe(content["recipe"])
        for weights in ("model", "ema"):
            if weights in content:
                upgraded[weights] = {_tensor_name(name): tensor for name, tensor in content[weights].items()}
    if content["version"] == 2:
        upgraded["recipe"] = {
            section: _rename(options, SECTIONS_OF_2[section]) if section in SECTIONS_OF_2 else options
            for section, options in content["recipe"].items()
        }
    for version, parts in PARTS_UNTIL.items():
        if content["version"] <= version:
            upgraded["recipe"] = _rename_in_parts(upgraded["recipe"], parts)
    return upgraded


def upgrade_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a resolved recipe of format 1 to the present names."""
    upgraded: dict[str, Any] = {}
    for section, content in recipe.items():
        if section in PARTS:
            entries = content if isinstance(content, list) else [content]
            parts = [_upgrade_part(section, entry) for entry in entries]
            upgraded[section] = parts if isinstance(content, list) else parts[0]
        else:
            upgraded[section] = _rename(content, section_names(section), section, section)
    return upgraded


def _rename_in_parts(recipe: Mapping[str, Any], parts: Mapping[str, Mapping[str, Names]]) -> dict[str, Any]:
    renamed = dict(recipe)
    for slot, names in parts.items():
        entry = recipe.get(slot, {})
        if entry.get("name") in names:
            renamed[slot] = _rename(entry, names[entry["name"]], f"{slot}.{entry['name']}")
    return renamed


def _upgrade_part(slot: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return _rename(entry, part_names(slot, entry["name"]), slot, f"{slot}.{entry['name']}")


def _rename(options: Mapping[str, Any], names: Names, *addresses: str) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for name, value in options.items():
        new = names.get(name, name)
        for address in addresses:
            value = VALUES.get(f"{address}.{new}", {}).get(value, value) if isinstance(value, Hashable) else value
        _set(renamed, new, value)
    for address, value in DEFAULTS.items():
        if addresses and address.startswith(f"{addresses[-1]}."):
            _set(renamed, address.removeprefix(f"{addresses[-1]}."), value)
    return renamed


def _set(options: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, name = dotted.split(".")
    for group in groups:
        options = options.setdefault(group, {})
    # A group may have got an option from elsewhere before.
    options[name] = {**options.get(name, {}), **value} if isinstance(value, Mapping) else value


def _tensor_name(name: str) -> str:
    for old, new in TENSORS.items():
        name = re.sub(old, new, name)
    return name
