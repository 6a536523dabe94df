"""Faster and Mask R-CNN of torchvision: released files, with names of any age, and those of users."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Any

from torch import Tensor

from boxwright.detector import Detector
from boxwright.layers.conv import ConvNorm
from boxwright.regions.options import RoIOptions
from boxwright.weights.operations import Permute, Roll
from boxwright.weights.projects.torchvision import label_categories, read_trunk, trunk_options, write_trunk
from boxwright.weights.projects.written_options import ask_for_options
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Table

__all__ = ["TorchvisionRCNN"]

_ANCHORS_OF_A_CELL = 3

_RPN, _OUR_RPN = "rpn.head", "head.first_stage.rpn"
_BOX, _MASK = "roi_heads.box_head", "roi_heads.mask_head"
_CLASSES = "roi_heads.box_predictor.cls_score"
_MASK_CONV = re.compile(r"roi_heads\.mask_head\.(mask_fcn\d+|\d+\.0)\.weight")


class TorchvisionRCNN:
    """Source: torchvision 0.29's ``fasterrcnn_resnet50_fpn`` and ``maskrcnn_resnet50_fpn``, both also ``_v2``."""

    title = "Faster and Mask R-CNN of torchvision"
    example = "torchvision:fasterrcnn_resnet50_fpn"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has("rpn.head.cls_logits.weight", f"{_CLASSES}.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        tensors = files.tensors
        if any(name.startswith("roi_heads.keypoint") for name in tensors):
            raise ValueError("Keypoint R-CNN, which Boxwright does not have")
        anchors = len(tensors["rpn.head.cls_logits.weight"])
        if anchors != _ANCHORS_OF_A_CELL:
            raise ValueError(
                f"{anchors} anchors for each cell, and Boxwright's region proposal network has {_ANCHORS_OF_A_CELL}; "
                "torchvision's detectors with MobileNetV3 cannot be read"
            )
        trunk = read_trunk(files)
        is_v2 = f"{_BOX}.fc6.weight" not in tensors
        with_masks = "roi_heads.mask_predictor.mask_fcn_logits.weight" in tensors
        num_convs, num_mask_convs = _count_rpn_convs(tensors), _count_mask_convs(tensors)
        masks_normed = f"{_MASK}.0.1.running_var" in tensors
        overrides = trunk.overrides | {
            "head.rpn.num_convs": num_convs,
            "head.rpn.anchor_grid": "padded_input",
            "head.boxes.head": "four_conv" if is_v2 else "two_linear",
            "head.boxes.hidden_dim": tensors[f"{_CLASSES}.weight"].shape[1],
        }
        if with_masks:
            hidden = tensors["roi_heads.mask_predictor.mask_fcn_logits.weight"].shape[1]
            overrides |= {
                "head.mask.num_convs": num_mask_convs,
                "head.mask.norm": "batch" if masks_normed else "none",
                "head.mask.hidden_dim": hidden,
            }
        rows = [*trunk.rows, *_head_rows(trunk.channels, is_v2=is_v2, is_old=f"{_RPN}.conv.weight" in tensors)]
        if with_masks:
            is_old = f"{_MASK}.mask_fcn1.weight" in tensors
            rows += _mask_rows(num_mask_convs, is_normed=masks_normed, is_old=is_old)
        name = "mask_rcnn" if with_masks else "faster_rcnn"
        return SourceModel(
            recipe=f"{name}_r50_fpn{'_v2' if is_v2 else ''}",
            overrides=overrides,
            categories=label_categories(len(tensors[f"{_CLASSES}.weight"]), background=True),
            table=Table(rows),
            assumptions=trunk.notes,
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        head: Any = detector.head
        if type(head).__name__ not in ("FasterRCNN", "MaskRCNN"):
            raise ValueError(f"torchvision's layout here is of Faster and Mask R-CNN, not of {type(head).__name__}")
        roi, default, rpn = head.roi, RoIOptions(), head.first_stage.options
        if roi.extractor != default.extractor:
            raise ValueError(f"torchvision's RoIAlign takes features from one level, which is not {roi.extractor}")
        is_v2 = isinstance(head.boxes.head.first[0], ConvNorm)
        rows = [*write_trunk(detector), *_head_rows(head.roi_source.channels, is_v2=is_v2)]
        names = ("sampling_ratio", "aligned", "level_epsilon")
        options = {f"head.roi.{name}": (getattr(roi, name), getattr(default, name)) for name in names}
        options |= {
            "head.rpn.anchor_grid": (rpn.anchor_grid, "padded_input"),
            "head.rpn.whole_pixels": (rpn.whole_pixels, True),
        }
        ask_for_options("torchvision", {**options, **trunk_options(detector)})
        if hasattr(head, "masks"):
            rows += _mask_rows(len(head.masks.middle) + 2, is_normed=isinstance(head.masks.last, ConvNorm))
        return Layout(tensors=Table(rows).write(detector.state_dict()).tensors, file_name="model.pth")


def _count_rpn_convs(tensors: Mapping[str, Tensor]) -> int:
    return next(i for i in count() if f"{_RPN}.conv.{i}.0.weight" not in tensors) or 1


def _count_mask_convs(tensors: Mapping[str, Tensor]) -> int:
    return len([name for name in tensors if _MASK_CONV.fullmatch(name)])


def _head_rows(channels: int, *, is_v2: bool, is_old: bool = False) -> list[Row]:
    """Make the rows of region proposals and the box branch.

    Args:
        channels: of every level.
        is_v2: four convolutions with norms in the box branch.
        is_old: ``rpn.head.conv.weight``, as releases before torchvision 0.13 have it.
    """
    rpn_conv = (f"{_RPN}.conv.{{*}}", f"{_OUR_RPN}.convs.0.{{*}}")
    if not is_old:
        rpn_conv = (f"{_RPN}.conv.{{n}}.0.{{*}}", f"{_OUR_RPN}.convs.{{n}}.{{*}}")
    rows = [
        Row(*rpn_conv),
        Row(f"{_RPN}.cls_logits.{{*}}", f"{_OUR_RPN}.logits.{{*}}"),
        Row(f"{_RPN}.bbox_pred.{{*}}", f"{_OUR_RPN}.deltas.{{*}}"),
        Row(f"{_CLASSES}.{{*}}", "head.boxes.classes.{*}", Roll(1)),
        Row("roi_heads.box_predictor.bbox_pred.{*}", "head.boxes.boxes.{*}", Roll(4)),
    ]
    first, rest = "head.boxes.head.first.0", "head.boxes.head.rest"
    if not is_v2:
        fc6 = Row(f"{_BOX}.fc6.{{*}}", f"{first}.1.{{*}}", Permute(channels))
        return [*rows, fc6, Row(f"{_BOX}.fc7.{{*}}", f"{rest}.1.{{*}}")]
    for part, name in enumerate(("conv", "norm")):
        rows.append(Row(f"{_BOX}.0.{part}.{{*}}", f"{first}.{name}.{{*}}"))
        rows.append(Row(f"{_BOX}.{{n+1}}.{part}.{{*}}", f"{rest}.{{n+1}}.{name}.{{*}}"))
    return [*rows, Row(f"{_BOX}.5.{{*}}", f"{rest}.5.{{*}}", Permute(channels))]


def _mask_rows(num_convs: int, *, is_normed: bool, is_old: bool = False) -> list[Row]:
    """Make the rows of the mask branch.

    Args:
        num_convs: before the transposed convolution.
        is_normed: norms follow them.
        is_old: ``mask_fcn1`` and so on, as releases before torchvision 0.13 have it.
    """
    rows = [
        Row("roi_heads.mask_predictor.conv5_mask.{*}", "head.masks.enlarge.{*}"),
        Row("roi_heads.mask_predictor.mask_fcn_logits.{*}", "head.masks.logits.{*}", Roll(1)),
    ]
    for index in range(num_convs):
        ours = {0: "first.0", num_convs - 1: "last"}.get(index, f"middle.{index - 1}")
        if is_normed:
            rows.append(Row(f"{_MASK}.{index}.0.{{*}}", f"head.masks.{ours}.conv.{{*}}"))
            rows.append(Row(f"{_MASK}.{index}.1.{{*}}", f"head.masks.{ours}.norm.{{*}}"))
            continue
        theirs = f"{_MASK}.mask_fcn{index + 1}" if is_old else f"{_MASK}.{index}.0"
        rows.append(Row(f"{theirs}.{{*}}", f"head.masks.{ours}{'.0' if index else ''}.{{*}}"))
    return rows
