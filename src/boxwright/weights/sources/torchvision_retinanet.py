"""RetinaNet of torchvision: released files, with names of any age, and those of users."""

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

__all__ = ["TorchvisionRetinaNet"]

_CLASSES, _BOXES = "head.classification_head", "head.regression_head"
_ANCHORS_OF_A_CELL = 9


class TorchvisionRetinaNet:
    """Source: torchvision 0.29's ``retinanet_resnet50_fpn`` and ``retinanet_resnet50_fpn_v2``."""

    title = "RetinaNet of torchvision"
    example = "torchvision:retinanet_resnet50_fpn"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        names = (f"{_CLASSES}.cls_logits.weight", f"{_BOXES}.bbox_reg.weight")
        return files.has(*names) and not files.has(f"{_BOXES}.bbox_ctrness.weight")

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        tensors = files.tensors
        anchors, logits = len(tensors[f"{_BOXES}.bbox_reg.weight"]) // 4, len(tensors[f"{_CLASSES}.cls_logits.weight"])
        if anchors != _ANCHORS_OF_A_CELL:
            raise ValueError(
                f"{anchors} anchors for each cell, and Boxwright's RetinaNet has {_ANCHORS_OF_A_CELL} here"
            )
        trunk = read_trunk(files)
        is_old, is_normed = f"{_CLASSES}.conv.0.weight" in tensors, f"{_CLASSES}.conv.0.1.weight" in tensors
        if is_normed:
            check_groups(trunk.channels)
        num_convs = count_tower_convs(tensors, f"{_CLASSES}.conv")
        overrides = trunk.overrides | {
            "head.num_convs": num_convs,
            "head.norm": "group" if is_normed else "none",
            "head.box_loss": "giou" if is_normed else "l1",
            "head.anchors.anchor_grid": "padded_input",
        }
        return SourceModel(
            recipe="retinanet_r50_fpn_v2" if is_normed else "retinanet_r50_fpn",
            overrides=overrides,
            categories=label_categories(logits // anchors, background=False),
            table=Table([*trunk.rows, *_head_rows(num_convs, is_normed=is_normed, is_old=is_old)]),
            assumptions=trunk.notes,
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        head: Any = detector.head
        if type(head).__name__ != "RetinaNet":
            raise ValueError(f"torchvision's layout here is of RetinaNet, not of {type(head).__name__}")
        is_normed = len(head.class_tower) % 3 == 0 and len(head.class_tower[1].state_dict()) > 0
        num_convs = len(head.class_tower) // (3 if is_normed else 2)
        rows = [*write_trunk(detector), *_head_rows(num_convs, is_normed=is_normed)]
        grid = (head.anchor_grid, "padded_input")
        ask_for_options("torchvision", {"head.anchors.anchor_grid": grid, **trunk_options(detector)})
        return Layout(tensors=Table(rows).write(detector.state_dict()).tensors, file_name="model.pth")


def _head_rows(num_convs: int, *, is_normed: bool, is_old: bool = False) -> list[Row]:
    """Make the rows of the head.

    Args:
        num_convs: of each tower.
        is_normed: norms follow them.
        is_old: ``conv.0.weight``, ``conv.2.weight`` and so on, as releases before torchvision 0.13 have it.
    """
    rows = [
        Row(f"{_CLASSES}.cls_logits.{{*}}", "head.classes.{*}"),
        Row(f"{_BOXES}.bbox_reg.{{*}}", "head.boxes.{*}"),
    ]
    for theirs, ours in ((_CLASSES, "head.class_tower"), (_BOXES, "head.box_tower")):
        for index in range(num_convs):
            conv = index * (3 if is_normed else 2)
            rows.append(Row(f"{theirs}.conv.{conv if is_old else f'{index}.0'}.{{*}}", f"{ours}.{conv}.{{*}}"))
            if is_normed:
                rows.append(Row(f"{theirs}.conv.{index}.1.{{*}}", f"{ours}.{conv + 1}.{{*}}"))
    return rows
