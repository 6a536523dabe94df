"""EfficientDet of rwightman/efficientdet-pytorch: files that hold the weights of the model, or of its benches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from boxwright.backbones.timm import Timm
from boxwright.detector import Detector
from boxwright.heads.efficientdet import EfficientDet
from boxwright.necks.bifpn import BiFPN
from boxwright.structures import Category
from boxwright.weights.labels import COCO_NAMES, UNUSED
from boxwright.weights.operations import Reorder
from boxwright.weights.source import Layout, SourceFiles, SourceModel
from boxwright.weights.table import Row, Skip, Table, TableError

__all__ = ["Effdet"]

_ANCHORS = 9
_LEVELS = ("c3", "c4", "c5")
"""Levels of the backbone; those beyond are made by the neck."""

_SIZES = {
    (320, 1): "d0",
    (320, 2): "d1",
    (352, 2): "d2",
    (384, 2): "d3",
    (448, 2): "d4",
    (512, 3): "d5",
    (576, 3): "d6",
    (640, 4): "d7x",
}
"""Model by width and number of blocks of the backbone's last stage; D7 has the tensors of D6."""

_BENCHES = ("model.", "module.", "")
"""Prefixes of names: of the benches for prediction and training, of data parallel training, of the model alone."""


class Effdet:
    """Source: Tan et al., EfficientDet, CVPR 2020; names of rwightman/efficientdet-pytorch, effdet 0.4.1."""

    title = "EfficientDet of rwightman/efficientdet-pytorch"
    example = "tf_efficientdet_d0_34-f153e0cf.pth"

    def recognizes(self, files: SourceFiles) -> bool:
        """Tell whether the files are of this kind."""
        return _prefix(files.tensors) is not None

    def describe(self, files: SourceFiles) -> SourceModel:
        """Describe the model in our words."""
        prefix = _prefix(files.tensors) or ""
        tensors = {name.removeprefix(prefix): tensor for name, tensor in files.tensors.items()}
        size = _find_size(tensors)
        names = f"{Path(files.origin.source).name} {files.release or ''}"
        assumptions = []
        if size == "d6":
            size = "d7" if "d7" in names else size
            assumptions.append(
                f"{size.upper()}: D6 and D7 have the same tensors and differ in anchors and image size; "
                "for the other set head.anchors.scale (D6 4, D7 5) and input.image_size (D6 1280, D7 1536)"
            )
        num_levels = _count(tensors, "class_net.bn_rep.0.{}.bn.weight")
        overrides: dict[str, object] = {
            "neck.out_channels": len(tensors["fpn.cell.0.fnode.0.after_combine.conv.bn.weight"]),
            "neck.repeats": _count(tensors, "fpn.cell.{}.fnode.0.after_combine.conv.bn.weight"),
            "neck.num_levels": num_levels,
            "neck.fusion": "fast" if "fpn.cell.0.fnode.0.combine.edge_weights" in tensors else "sum",
            "head.num_convs": _count(tensors, "class_net.conv_rep.{}.conv_dw.weight"),
            "input.resize": "letterbox",
            "input.max_size": None,
        }
        assumptions.append("the image size is that of the published model, no file says it: input.image_size")
        return SourceModel(
            recipe=f"efficientdet_{size}",
            overrides=overrides,
            categories=_name_classes(len(tensors["class_net.predict.conv_pw.bias"]) // _ANCHORS),
            table=_make_table(prefix, num_levels),
            assumptions=assumptions,
        )

    def write(self, detector: Detector) -> Layout:
        """Bring a detector into the layout."""
        neck: nn.Module | None = detector.necks[0] if len(detector.necks) == 1 else None
        if not (
            isinstance(detector.backbone, Timm)
            and isinstance(neck, BiFPN)
            and isinstance(detector.head, EfficientDet)
            and tuple(neck.incoming) == _LEVELS
        ):
            raise ValueError("effdet's layout takes an EfficientDet: backbone timm, one bifpn over c3 to c5, its head")
        table = _make_table("", len(neck.out_spec))
        try:
            return Layout(tensors=table.write(detector.state_dict()).tensors, file_name="model.pth")
        except TableError as error:
            raise ValueError(f"effdet's layout has no place for this EfficientDet: {error}") from error


def _prefix(tensors: Iterable[str]) -> str | None:
    """Find what stands before the names of the model; None where it is another one."""
    names = set(tensors)
    for prefix in _BENCHES:
        marks = ("fpn.cell.0.fnode.0.after_combine.conv.conv_pw.weight", "class_net.predict.conv_pw.weight")
        if all(prefix + mark in names for mark in marks):
            return prefix
    return None


def _find_size(tensors: dict[str, Tensor]) -> str:
    """Find the model by its backbone.

    Raises:
        ValueError: none that there is a counterpart of.
    """
    if "class_net.conv_rep.0.conv_pw.bias" not in tensors:
        raise ValueError(
            "an EfficientDet without biases before its norms (efficientdet_d0 to d3, not tf_): its pooling is padded "
            "in another way, which bifpn has not; take tf_efficientdet_d0 to d7x"
        )
    if "backbone.blocks.0.0.se.conv_reduce.weight" not in tensors:
        raise ValueError(
            "an EfficientDet on another backbone than EfficientNet-B0 to B7 (a lite model?), of which there is no "
            "counterpart here; take tf_efficientdet_d0 to d7x"
        )
    width, blocks = 0, 0
    while f"backbone.blocks.6.{blocks}.conv_pwl.weight" in tensors:
        width, blocks = len(tensors[f"backbone.blocks.6.{blocks}.conv_pwl.weight"]), blocks + 1
    size = _SIZES.get((width, blocks))
    if size is None:
        raise ValueError(
            f"no EfficientNet-B0 to B7: {blocks} blocks of {width} channels in its last stage; "
            "take tf_efficientdet_d0 to d7x"
        )
    return size


def _count(tensors: dict[str, Tensor], template: str) -> int:
    """Count the tensors of a name with a number in it, from 0 on."""
    count = 0
    while template.format(count) in tensors:
        count += 1
    return count


def _name_classes(count: int) -> list[Category]:
    """Name the classes: label i is COCO's category id i + 1, of 90 classes."""
    if count != len(COCO_NAMES):
        return [Category(i, f"class_{i}") for i in range(1, count + 1)]
    return [Category(i, UNUSED if name == "-" else name.replace("_", " ")) for i, name in enumerate(COCO_NAMES, 1)]


def _make_table(prefix: str, num_levels: int) -> Table:
    """Make the table of a model with so many levels."""
    last = num_levels - 1
    levels = [f"c{3 + position}" for position in range(num_levels)]
    rows = [Row("backbone.{**}", "backbone.body.{**}"), *_projection("fpn.resample.3.conv", "necks.0.project")]
    for position, level in enumerate(levels):
        # Nodes are numbered in the order of execution: down from the level before the coarsest, then up.
        if position < last:
            rows += _node(last - 1 - position, f"down.{level}", position)
        if position > 0:
            rows += _node(last - 1 + position, f"up.{level}", position)
    for theirs, ours, predictor in (("class_net", "class_tower", "classes"), ("box_net", "box_tower", "boxes")):
        rows += _separable(f"{theirs}.conv_rep.{{n}}", f"head.{ours}.blocks.{{n}}.conv")
        rows += [
            Row(f"{theirs}.bn_rep.{{n}}.{position}.bn.{{*}}", f"head.{ours}.blocks.{{n}}.norms.{level}.{{*}}")
            for position, level in enumerate(levels)
        ]
        rows.append(Row(f"{theirs}.predict.conv_dw.{{*}}", f"head.{predictor}.depthwise.{{*}}"))
    rows.append(Row("class_net.predict.conv_pw.{*}", "head.classes.pointwise.{*}"))
    rows.append(Row("box_net.predict.conv_pw.{*}", "head.boxes.pointwise.{*}", Reorder((1, 0, 3, 2))))
    skips = [Skip(name, "made from the image size") for name in ("anchors.boxes", f"{prefix}anchors.boxes")]
    return Table(
        rows=[Row(prefix + str(row.theirs), row.ours, row.operation) for row in rows],
        skips=skips[: 2 if prefix else 1],
    )


def _separable(theirs: str, ours: str) -> list[Row]:
    return [
        Row(f"{theirs}.conv_dw.{{*}}", f"{ours}.depthwise.{{*}}"),
        Row(f"{theirs}.conv_pw.{{*}}", f"{ours}.pointwise.{{*}}"),
    ]


def _projection(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.conv.{{*}}", f"{ours}.conv.{{*}}"), Row(f"{theirs}.bn.{{*}}", f"{ours}.norm.{{*}}")]


def _node(index: int, path: str, position: int) -> list[Row]:
    """List the rows of a fusion node; those levels that come from the backbone are projected for each."""
    theirs, ours = f"fpn.cell.{{c}}.fnode.{index}", f"necks.0.cells.{{c}}.{path}"
    rows = [
        Row(f"{theirs}.combine.edge_weights", f"{ours}.weights"),
        Row(f"{theirs}.after_combine.conv.conv_dw.{{*}}", f"{ours}.conv.depthwise.{{*}}"),
        Row(f"{theirs}.after_combine.conv.conv_pw.{{*}}", f"{ours}.conv.pointwise.conv.{{*}}"),
        Row(f"{theirs}.after_combine.conv.bn.{{*}}", f"{ours}.conv.pointwise.norm.{{*}}"),
    ]
    if position < len(_LEVELS):
        rows += _projection(f"{theirs}.combine.resample.{position}.conv", f"{ours}.projections.0")
    return rows
