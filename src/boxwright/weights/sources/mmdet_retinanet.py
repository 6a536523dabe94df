"""RetinaNet of mmdetection 3, with FPN or NAS-FPN: files that hold ``{"meta", "state_dict"}``."""

from __future__ import annotations

from typing import Any

from boxwright.weights.operations import SubtractBias
from boxwright.weights.projects.mmdet import (
    STANDARD,
    Parts,
    Tensors,
    count_numbered,
    describe_input,
    describe_pyramid,
    describe_resnet,
    name_classes,
    refuse_variants,
)
from boxwright.weights.projects.mmdet_config import MMDetConfig
from boxwright.weights.source import SourceFiles, SourceModel
from boxwright.weights.table import COUNTER, Row, Table

__all__ = ["MMDetRetinaNet"]

_NODES = ("gp_64_4", "sum_44_4", "sum_43_3", "sum_34_4", "sum_55_5", "sum_77_7", "gp_75_6")
"""Nodes of NAS-FPN that have a convolution, in the order of execution; others are part of the one that follows."""

_NAS_FPN_MULTIPLE = 128

_TOWERS = (("bbox_head.cls_convs", "head.class_tower"), ("bbox_head.reg_convs", "head.box_tower"))


class MMDetRetinaNet:
    """Source: Lin et al., RetinaNet, ICCV 2017; names and configurations of open-mmlab/mmdetection 3.3.0."""

    title = "RetinaNet of mmdetection"
    example = "retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("bbox_head.retina_cls.weight", "backbone.layer1.0.conv2.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        tensors, config = files.tensors, MMDetConfig.of_files(files)
        refuse_variants(tensors)
        config.check()
        anchors = _describe_anchors(config)
        is_nas = "neck.fpn_stages.0.gp_64_4.out_conv.conv.weight" in tensors
        backbone = describe_resnet(tensors, config)
        neck = _describe_nas_fpn(tensors) if is_nas else describe_pyramid(tensors, config, extra_levels=2)
        head = _describe_head(tensors)
        per_cell = len(tensors["bbox_head.retina_reg.bias"]) // 4
        categories, notes = name_classes(files, len(tensors["bbox_head.retina_cls.bias"]) // per_cell)
        return SourceModel(
            recipe="retinanet_r50_nasfpn" if is_nas else "retinanet_r50_fpn",
            overrides={
                **describe_input(config),
                **backbone.overrides,
                **neck.overrides,
                **head.overrides,
                **anchors,
                **_describe_limits(config),
                **({"input.pad_multiple": _NAS_FPN_MULTIPLE} if is_nas and not config else {}),
            },
            categories=categories,
            table=Table(rows=[*backbone.rows, *neck.rows, *head.rows]),
            assumptions=[*([] if config else [STANDARD]), *notes],
        )


def _describe_anchors(config: MMDetConfig) -> dict[str, Any]:
    generator = "model.bbox_head.anchor_generator"
    ratios = config.get(f"{generator}.ratios", (0.5, 1.0, 2.0))
    return {
        "head.anchors.scale": float(config.number(f"{generator}.octave_base_scale", 4.0)),
        "head.anchors.octave_steps": int(config.number(f"{generator}.scales_per_octave", 3)),
        "head.anchors.aspect_ratios": list(config.numbers(f"{generator}.ratios", len(ratios)) or (0.5, 1.0, 2.0)),
        "head.anchors.whole_pixels": False,
    }


def _describe_limits(config: MMDetConfig) -> dict[str, Any]:
    test = "model.test_cfg"
    return {
        "head.detection.score_threshold": config.number(f"{test}.score_thr", 0.05),
        "head.detection.nms_threshold": config.number(f"{test}.nms.iou_threshold", 0.5),
        "head.detection.pre_nms_top_k": int(config.number(f"{test}.nms_pre", 1000)),
        "head.detection.max_detections": int(config.number(f"{test}.max_per_img", 100)),
        "head.detection.keep_empty": config.number(f"{test}.min_bbox_size", 0) < 0,
    }


def _describe_nas_fpn(tensors: Tensors) -> Parts:
    """Describe a NAS-FPN over c3 to c5."""
    rows: list[Row] = []
    for index, level in enumerate(("c3", "c4", "c5")):
        rows += _normed(f"neck.lateral_convs.{index}", f"necks.0.lateral.{level}")
    for index, level in enumerate(("c6", "c7")):
        rows += _normed(f"neck.extra_downsamples.{index}.0", f"necks.0.extra.{level}")
    for index, node in enumerate(_NODES):
        theirs, ours = f"neck.fpn_stages.{{n}}.{node}.out_conv", f"necks.0.cells.{{n}}.nodes.{index}"
        # The norm after it takes the bias away.
        mean = (f"{theirs}.bn.running_mean", f"{theirs}.conv.bias")
        rows.append(Row(f"{theirs}.conv.weight", f"{ours}.conv.weight"))
        rows.append(Row(mean, f"{ours}.norm.running_mean", SubtractBias()))
        rows += [
            Row(f"{theirs}.bn.{name}", f"{ours}.norm.{name}") for name in ("weight", "bias", "running_var", COUNTER)
        ]
    overrides = {
        "backbone.levels": ["c3", "c4", "c5"],
        "neck.wiring": "mmdet",
        "neck.out_channels": len(tensors["neck.lateral_convs.0.conv.weight"]),
        "neck.repeats": count_numbered(tensors, "neck.fpn_stages.{}.gp_64_4.out_conv.conv.weight"),
    }
    return Parts(overrides, rows)


def _normed(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.conv.{{*}}", f"{ours}.conv.{{*}}"), Row(f"{theirs}.bn.{{*}}", f"{ours}.norm.{{*}}")]


def _describe_head(tensors: Tensors) -> Parts:
    """Describe the towers, which alternate convolutions and ReLUs, and the predictions; all levels share them."""
    rows = [Row("bbox_head.retina_cls.{*}", "head.classes.{*}"), Row("bbox_head.retina_reg.{*}", "head.boxes.{*}")]
    if "bbox_head.cls_convs.0.0.bn.weight" in tensors:
        return _describe_normed_head(tensors, rows)
    convs = count_numbered(tensors, "bbox_head.cls_convs.{}.conv.weight")
    for index in range(convs):
        for theirs, ours in _TOWERS:
            rows.append(Row(f"{theirs}.{index}.conv.{{*}}", f"{ours}.{2 * index}.{{*}}"))
    return Parts({"head.num_convs": convs}, rows)


def _describe_normed_head(tensors: Tensors, rows: list[Row]) -> Parts:
    """Describe towers with norms of each level's own; there, each level has a copy of the shared convolutions."""
    convs = count_numbered(tensors, "bbox_head.cls_convs.0.{}.conv.weight")
    levels = count_numbered(tensors, "bbox_head.cls_convs.{}.0.conv.weight")
    for index in range(convs):
        for theirs, ours in _TOWERS:
            copies = tuple(f"{theirs}.{level}.{index}.conv.weight" for level in range(levels))
            rows.append(Row(copies, f"{ours}.{3 * index}.weight"))
            rows += [
                Row(f"{theirs}.{level}.{index}.bn.{{*}}", f"{ours}.{3 * index + 1}.norms.c{3 + level}.{{*}}")
                for level in range(levels)
            ]
    return Parts({"head.num_convs": convs, "head.norm": "batch"}, rows)
