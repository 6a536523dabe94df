"""Parts that mmdetection's detectors have in common: backbone, pyramids, preprocessing, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from boxwright.structures import Category
from boxwright.weights.labels import coco_categories
from boxwright.weights.projects.mmdet_config import MMDetConfig
from boxwright.weights.source import SourceFiles
from boxwright.weights.table import Row

Tensors = Mapping[str, Tensor]

_DEPTHS = {(False, 2): 18, (False, 6): 34, (True, 6): 50, (True, 23): 101, (True, 36): 152}
"""Depth of a ResNet by whether it has bottlenecks, and the number of blocks in its third stage."""

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of mmdetection's standard preprocessing, RGB in [0, 255]."""

_SCALE = (1333, 800)
_PAD_MULTIPLE = 32

_VARIANTS = {
    "conv_offset": "deformable convolutions",
    "switch.weight": "switchable convolutions, which are deformable there",
    "backbone.stem.": "another stem (ResNet-C or -D)",
    "mask_head.0.": "mask branches in a cascade",
}
"""Variants that there is no counterpart of, by a part of a tensor's name."""

STANDARD = (
    "the file has no configuration: input size, mean, std, RGB and padding are those of mmdetection's standard "
    "(style pytorch); a caffe file needs input.channel_order bgr, input.mean [0.485, 0.456, 0.406], input.std "
    "[0.00392157, 0.00392157, 0.00392157] and backbone.stride_in 1x1"
)


class Parts(NamedTuple):
    """Overrides of a recipe, and rows of the table that belong to them."""

    overrides: dict[str, Any]
    rows: list[Row]


def count_numbered(tensors: Tensors, template: str) -> int:
    """Count the tensors of a name with a number in it, from 0 on."""
    count = 0
    while template.format(count) in tensors:
        count += 1
    return count


def refuse_variants(tensors: Tensors) -> None:
    """Make sure that there is a counterpart of every kind of layer.

    Raises:
        ValueError: there is none, in one line.
    """
    for part, variant in _VARIANTS.items():
        name = next((name for name in tensors if part in name), None)
        if name is not None:
            raise ValueError(
                f"a detector of mmdetection with {variant} ({name}), of which there is no counterpart here"
            )
    inner = tensors["backbone.layer1.0.conv2.weight"]
    if inner.shape[0] != inner.shape[1]:
        raise ValueError("a detector of mmdetection on ResNeXt or another grouped backbone; only ResNets are read")


def describe_resnet(tensors: Tensors, config: MMDetConfig) -> Parts:
    """Describe a ResNet.

    Raises:
        ValueError: one of another depth.
    """
    kind = ("backbone.layer1.0.conv3.weight" in tensors, count_numbered(tensors, "backbone.layer3.{}.conv1.weight"))
    if kind not in _DEPTHS:
        raise ValueError(f"a ResNet with {kind[1]} blocks in its third stage, which is of no known depth")
    overrides = {
        "backbone.depth": _DEPTHS[kind],
        "backbone.width": len(tensors["backbone.conv1.weight"]),
        "backbone.stride_in": "1x1" if config.get("model.backbone.style") == "caffe" else "3x3",
    }
    return Parts(overrides, [Row("backbone.{**}", "backbone.{**}")])


def describe_pyramid(tensors: Tensors, config: MMDetConfig, *, extra_levels: int) -> Parts:
    """Describe a pyramid: FPN, or PAFPN, which has a second path.

    Args:
        tensors: theirs.
        config: theirs.
        extra_levels: beyond the coarsest where they have no convolutions.

    Raises:
        ValueError: extra levels are made of what no level here is made of.
    """
    laterals = count_numbered(tensors, "neck.lateral_convs.{}.conv.weight")
    convs = count_numbered(tensors, "neck.fpn_convs.{}.conv.weight")
    levels = [f"c{6 - laterals + index}" for index in range(laterals)]
    rows = []
    for index, level in enumerate(levels):
        rows.append(Row(f"neck.lateral_convs.{index}.conv.{{*}}", f"necks.0.pyramid.lateral.{level}.{{*}}"))
        rows.append(Row(f"neck.fpn_convs.{index}.conv.{{*}}", f"necks.0.pyramid.smooth.{level}.{{*}}"))
    rows += [
        Row(f"neck.fpn_convs.{index}.conv.{{*}}", f"necks.0.extra.convs.c{6 + index - laterals}.{{*}}")
        for index in range(laterals, convs)
    ]
    overrides: dict[str, Any] = {
        "backbone.levels": levels,
        "neck.out_channels": len(tensors["neck.fpn_convs.0.conv.weight"]),
        "neck.extra_levels": max(convs - laterals, 0) or _count_pooled(config, laterals, extra_levels),
        "neck.extra": _find_extra(tensors, config, laterals, convs),
        "neck.extra_relu": bool(config.get("model.neck.relu_before_extra_convs", False)),
    }
    for index, level in enumerate(levels[1:]):
        if "neck.pafpn_convs.0.conv.weight" in tensors:
            rows.append(Row(f"neck.downsample_convs.{index}.conv.{{*}}", f"necks.0.downsample.{level}.{{*}}"))
            rows.append(Row(f"neck.pafpn_convs.{index}.conv.{{*}}", f"necks.0.fuse.{level}.{{*}}"))
            overrides["neck.wiring"] = "mmdet"
    return Parts(overrides, rows)


def _count_pooled(config: MMDetConfig, laterals: int, default: int) -> int:
    outs = config.get("model.neck.num_outs")
    return outs - laterals if isinstance(outs, int) and outs >= laterals else default


def _find_extra(tensors: Tensors, config: MMDetConfig, laterals: int, convs: int) -> str:
    """Find what extra levels are made of."""
    if convs == laterals:
        return "max_pool"
    added = config.get("model.neck.add_extra_convs")
    if added == "on_lateral":
        raise ValueError("extra levels of its pyramid are made of the last lateral, of which there is no counterpart")
    if added in ("on_input", "on_output"):
        return "conv_input" if added == "on_input" else "conv_output"
    inputs = tensors[f"neck.fpn_convs.{laterals}.conv.weight"].shape[1]
    from_input = inputs == tensors[f"neck.lateral_convs.{laterals - 1}.conv.weight"].shape[1]
    return "conv_input" if from_input else "conv_output"


def describe_input(config: MMDetConfig) -> dict[str, Any]:
    """Describe the preprocessing, as OpenCV and mmdetection's data preprocessor do it."""
    source = "model.data_preprocessor" if config.get("model.data_preprocessor") else "img_norm_cfg"
    mean = config.numbers(f"{source}.mean", 3) or _MEAN
    std = config.numbers(f"{source}.std", 3) or _STD
    is_rgb = config.get(f"{source}.bgr_to_rgb", config.get(f"{source}.to_rgb", True)) is not False
    if not is_rgb:  # theirs are in the order of the channels, ours are RGB
        mean, std = mean[::-1], std[::-1]
    resize = config.find_step("Resize", "MultiScaleFlipAug")
    scale = resize.get("scale") or config.find_step("MultiScaleFlipAug").get("img_scale")
    if not (isinstance(scale, tuple) and len(scale) == 2 and all(isinstance(side, int) for side in scale)):
        scale = _SCALE
    padding = config.get("model.data_preprocessor.pad_size_divisor", config.find_step("Pad").get("size_divisor"))
    return {
        "input.image_size": min(scale),
        "input.max_size": max(scale),
        "input.resize": "shortest_side",
        "input.size_rule": "mmcv",
        "input.antialias": False,
        "input.mean": [round(value / 255, 12) for value in mean],
        "input.std": [round(value / 255, 12) for value in std],
        "input.channel_order": "rgb" if is_rgb else "bgr",
        "input.pad_multiple": padding if isinstance(padding, int) and padding > 0 else _PAD_MULTIPLE,
    }


def name_classes(files: SourceFiles, count: int) -> tuple[list[Category], list[str]]:
    """Name the classes, by the names in the file, or as COCO's where there are 80; return also what was assumed."""
    meta = files.extra.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get("dataset_meta")
    for holder in (data if isinstance(data, Mapping) else {}, meta):
        for key in ("CLASSES", "classes"):
            names = holder.get(key)
            if isinstance(names, Sequence) and len(names) == count and all(isinstance(name, str) for name in names):
                coco = coco_categories()
                if [one.name for one in coco] == list(names):
                    return coco, []
                return [Category(i, name) for i, name in enumerate(names)], []
    if count == len(coco_categories()):
        return coco_categories(), ["the file names no classes; 80 of them are taken for COCO's"]
    return [Category(i, f"class_{i}") for i in range(count)], ["the file names no classes"]
