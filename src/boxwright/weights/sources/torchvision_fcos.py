"""FCOS of torchvision: the released file, and those of users."""

from __future__ import annotations

from typing import Any

from boxwright.detector import Detector
from boxwright.weights.projects.torchvision import (
    check_groups,
    count_tower_convs,
    label_categories,
    read_trunk,
    trunk_options,
    write_trunk,
)
from boxwright.weights.projects.written_options import ask_for_options
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Table

__all__ = ["TorchvisionFCOS"]

_CLASSES, _BOXES = "head.classification_head", "head.regression_head"
_LAYERS_PER_CONV = 3

_ROWS = (
    Row(f"{_CLASSES}.conv.{{n}}.{{*}}", "head.class_tower.{n}.{*}"),
    Row(f"{_BOXES}.conv.{{n}}.{{*}}", "head.box_tower.{n}.{*}"),
    Row(f"{_CLASSES}.cls_logits.{{*}}", "head.classes.{*}"),
    Row(f"{_BOXES}.bbox_reg.{{*}}", "head.distances.{*}"),
    Row(f"{_BOXES}.bbox_ctrness.{{*}}", "head.centerness.{*}"),
)


class TorchvisionFCOS:
    """Source: torchvision 0.29's ``fcos_resnet50_fpn``."""

    title = "FCOS of torchvision"
    example = "torchvision:fcos_resnet50_fpn"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return files.has(f"{_CLASSES}.cls_logits.weight", f"{_BOXES}.bbox_ctrness.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        tensors = files.tensors
        if len(tensors[f"{_BOXES}.bbox_reg.weight"]) != 4:
            raise ValueError("several anchors for each cell, and Boxwright's FCOS has one point")
        trunk = read_trunk(files)
        check_groups(trunk.channels)
        return SourceModel(
            recipe="fcos_r50_fpn",
            overrides=trunk.overrides
            | {
                "head.num_convs": count_tower_convs(tensors, f"{_CLASSES}.conv"),
                "head.point_offset": 0.0,
                "head.anchor_grid": "padded_input",
            },
            categories=label_categories(len(tensors[f"{_CLASSES}.cls_logits.weight"]), background=False),
            table=Table([*trunk.rows, *_ROWS]),
            assumptions=trunk.notes,
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        head: Any = detector.head
        if type(head).__name__ != "FCOS":
            raise ValueError(f"torchvision's layout here is of FCOS, not of {type(head).__name__}")
        if len(head.class_tower) % _LAYERS_PER_CONV or not head.class_tower[1].state_dict():
            raise ValueError("torchvision's FCOS has group norm in its towers (head.norm group)")
        is_offset = bool((head.base_anchors[..., 0] + head.base_anchors[..., 2]).any())
        rows = [*write_trunk(detector), *_ROWS]
        options = {"head.anchor_grid": (head.anchor_grid, "padded_input"), "head.point_offset": (float(is_offset), 0.0)}
        ask_for_options("torchvision", {**options, **trunk_options(detector)})
        return Layout(tensors=Table(rows).write(detector.state_dict()).tensors, file_name="model.pth")
