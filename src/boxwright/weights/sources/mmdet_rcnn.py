"""R-CNNs of mmdetection 3: Faster, Mask and Cascade with FPN or PAFPN, Cascade with RFP.

Their files hold ``{"meta": ..., "state_dict": ...}``.
"""

from __future__ import annotations

from typing import Any

from boxwright.weights.operations import AppendZeros, Permute
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
from boxwright.weights.projects.mmdet_rfp import describe_rfp
from boxwright.weights.source import SourceFiles, SourceModel
from boxwright.weights.table import Row, Table

__all__ = ["MMDetRCNN"]

_BOX_CELLS = 49
"""Cells of a region that the box branch sees."""

_STAGE_STDS = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))
"""Of the deltas of each stage of a cascade, of centers and sizes."""


class MMDetRCNN:
    """Source: Ren et al., Faster R-CNN, NeurIPS 2015; He et al., Mask R-CNN, ICCV 2017; Cai and Vasconcelos, Cascade
    R-CNN, CVPR 2018; names and configurations of open-mmlab/mmdetection 3.3.0."""

    title = "R-CNNs of mmdetection"
    example = "faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("rpn_head.rpn_conv.weight", "backbone.layer1.0.conv2.weight") and (
            files.has("roi_head.bbox_head.fc_cls.weight") or files.has("roi_head.bbox_head.0.fc_cls.weight")
        )

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        tensors, config = files.tensors, MMDetConfig.of_files(files)
        refuse_variants(tensors)
        config.check()
        stages = count_numbered(tensors, "roi_head.bbox_head.{}.fc_cls.weight")
        if "neck.rfp_weight.weight" in tensors:
            features = [describe_rfp(tensors, config)]
        else:
            features = [describe_resnet(tensors, config), describe_pyramid(tensors, config, extra_levels=1)]
        head = _describe_cascade(config, tensors, stages) if stages else _describe_boxes(tensors)
        parts = [*features, _describe_rpn(config), head]
        classes = tensors[f"roi_head.bbox_head.{'0.' if stages else ''}fc_cls.weight"]
        categories, notes = name_classes(files, len(classes) - 1)
        return SourceModel(
            recipe=_find_recipe(tensors, stages),
            overrides={
                **{key: value for part in parts for key, value in part.overrides.items()},
                **_describe_limits(config),
                **describe_input(config),
            },
            categories=categories,
            table=Table(rows=[row for part in parts for row in part.rows]),
            assumptions=[*([] if config else [STANDARD]), *notes],
        )


def _find_recipe(tensors: Tensors, stages: int) -> str:
    if stages and "neck.rfp_weight.weight" in tensors:
        return "detectors_r50"
    if stages:
        return "cascade_rcnn_r50_fpn"
    if "roi_head.mask_head.conv_logits.weight" in tensors:
        return "mask_rcnn_r50_fpn"
    return "faster_rcnn_r50_pafpn" if "neck.pafpn_convs.0.conv.weight" in tensors else "faster_rcnn_r50_fpn"


def _describe_rpn(config: MMDetConfig) -> Parts:
    """Describe the first stage, and the features of regions."""
    extractor = "model.roi_head.bbox_roi_extractor.roi_layer"
    overrides = {
        "head.rpn.anchor_scale": config.number("model.rpn_head.anchor_generator.scales.0", 8.0),
        "head.rpn.whole_pixels": False,
        "head.rpn.pre_nms_top_k": [2000, int(config.number("model.test_cfg.rpn.nms_pre", 1000))],
        "head.rpn.post_nms_top_k": [2000, int(config.number("model.test_cfg.rpn.max_per_img", 1000))],
        "head.rpn.nms_threshold": config.number("model.test_cfg.rpn.nms.iou_threshold", 0.7),
        "head.roi.level_epsilon": "inside",
        "head.roi.sampling_ratio": int(config.number(f"{extractor}.sampling_ratio", 0)),
        "head.roi.aligned": config.get(f"{extractor}.aligned", True) is not False,
    }
    ours = "head.first_stage.rpn"
    rows = [
        Row("rpn_head.rpn_conv.{*}", f"{ours}.convs.0.{{*}}"),
        Row("rpn_head.rpn_cls.{*}", f"{ours}.logits.{{*}}"),
        Row("rpn_head.rpn_reg.{*}", f"{ours}.deltas.{{*}}"),
    ]
    return Parts(overrides, rows)


def _describe_limits(config: MMDetConfig) -> dict[str, Any]:
    test = "model.test_cfg.rcnn"
    return {
        "head.detection.score_threshold": config.number(f"{test}.score_thr", 0.05),
        "head.detection.nms_threshold": config.number(f"{test}.nms.iou_threshold", 0.5),
        "head.detection.max_detections": int(config.number(f"{test}.max_per_img", 100)),
    }


def _describe_boxes(tensors: Tensors) -> Parts:
    """Describe the box branch, and the mask branch where there is one."""
    rows = _box_rows(tensors, "roi_head.bbox_head", "head.boxes", AppendZeros(4))
    overrides: dict[str, Any] = {"head.boxes.hidden_dim": len(tensors["roi_head.bbox_head.shared_fcs.0.bias"])}
    convs = count_numbered(tensors, "roi_head.mask_head.convs.{}.conv.weight")
    if "roi_head.mask_head.conv_logits.weight" not in tensors or convs < 2:
        return Parts(overrides, rows)
    theirs, ours = "roi_head.mask_head", "head.masks"
    rows += [
        Row(f"{theirs}.convs.0.conv.{{*}}", f"{ours}.first.0.{{*}}"),
        *(Row(f"{theirs}.convs.{i}.conv.{{*}}", f"{ours}.middle.{i - 1}.0.{{*}}") for i in range(1, convs - 1)),
        Row(f"{theirs}.convs.{convs - 1}.conv.{{*}}", f"{ours}.last.0.{{*}}"),
        Row(f"{theirs}.upsample.{{*}}", "head.masks.enlarge.{*}"),
        Row(f"{theirs}.conv_logits.{{*}}", f"{ours}.logits.{{*}}", AppendZeros(1)),
    ]
    overrides |= {"head.mask.num_convs": convs, "head.mask.hidden_dim": len(tensors[f"{theirs}.convs.0.conv.bias"])}
    return Parts(overrides, rows)


def _describe_cascade(config: MMDetConfig, tensors: Tensors, stages: int) -> Parts:
    """Describe the box branches of a cascade."""
    overrides = {
        "head.averages": "logits",
        "head.stage_stds": [_stage_stds(config, stage) for stage in range(stages)],
        "head.boxes.hidden_dim": len(tensors["roi_head.bbox_head.0.shared_fcs.0.bias"]),
    }
    rows = [
        row
        for stage in range(stages)
        for row in _box_rows(tensors, f"roi_head.bbox_head.{stage}", f"head.stages.{stage}")
    ]
    return Parts(overrides, rows)


def _stage_stds(config: MMDetConfig, stage: int) -> tuple[float, float]:
    """Read the standard deviations of a stage's deltas, of centers and sizes.

    Raises:
        ValueError: x and y, or width and height, have different ones.
    """
    stds = config.numbers(f"model.roi_head.bbox_head.{stage}.bbox_coder.target_stds", 4)
    if stds is None:
        return _STAGE_STDS[min(stage, len(_STAGE_STDS) - 1)]
    if stds[0] != stds[1] or stds[2] != stds[3]:
        raise ValueError(
            f"target_stds {list(stds)} of stage {stage + 1} differ between x and y, which they do not here"
        )
    return stds[0], stds[2]


def _box_rows(tensors: Tensors, theirs: str, ours: str, boxes: AppendZeros | None = None) -> list[Row]:
    """List the rows of a box branch of two linear layers."""
    first = tensors.get(f"{theirs}.shared_fcs.0.weight")
    if first is None:
        raise ValueError(f"its box branch has no {theirs}.shared_fcs.0, two linear layers, which are all that is read")
    reg = Row(f"{theirs}.fc_reg.{{*}}", f"{ours}.boxes.{{*}}")
    if boxes is not None:
        reg = Row(f"{theirs}.fc_reg.{{*}}", f"{ours}.boxes.{{*}}", boxes)
    return [
        Row(f"{theirs}.shared_fcs.0.{{*}}", f"{ours}.head.first.0.1.{{*}}", Permute(first.shape[1] // _BOX_CELLS)),
        Row(f"{theirs}.shared_fcs.1.{{*}}", f"{ours}.head.rest.1.{{*}}"),
        Row(f"{theirs}.fc_cls.{{*}}", f"{ours}.classes.{{*}}"),
        reg,
    ]
