"""Structure of torchvision's detectors, read from the names and shapes of their tensors: ResNet, FPN, preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from torch import Tensor, nn

from boxwright.detector import Detector
from boxwright.layers.conv import ConvNorm
from boxwright.layers.resnet import BLOCKS_PER_STAGE, STAGES, Bottleneck, ResNetBody, has_bottlenecks_at
from boxwright.necks.fpn import FPN
from boxwright.structures import Category
from boxwright.weights.labels import category_ids
from boxwright.weights.projects.huggingface import IMAGENET_MEAN, IMAGENET_STD
from boxwright.weights.projects.torchvision_releases import Release, find_release, release_of_file
from boxwright.weights.projects.written_options import block_options
from boxwright.weights.source import SourceFiles
from boxwright.weights.table import Row

PREPROCESSING: Mapping[str, Any] = {
    "input.image_size": 800,
    "input.resize": "shortest_side",
    "input.max_size": 1333,
    "input.mean": IMAGENET_MEAN,
    "input.std": IMAGENET_STD,
    "input.antialias": False,
    "input.resize_floats": True,
    "input.size_rule": "torchvision",
    "input.pad_multiple": 32,
}
"""Format of the inputs of torchvision's ``GeneralizedRCNNTransform``, with the sizes of all its released detectors."""

WITHOUT_EPS = (
    "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
    "MaskRCNN_ResNet50_FPN_Weights.COCO_V1",
    "RetinaNet_ResNet50_FPN_Weights.COCO_V1",
)
"""Releases whose frozen norms torchvision's builders give an epsilon of 0, which stands in no file."""

GROUPS = 32
"""Groups of the group norms of torchvision's towers."""

_FPN = "backbone.fpn"
_BODY = "backbone.body."
_NECK = "necks.0"


class Trunk(NamedTuple):
    """Backbone and neck of a detector.

    ``overrides`` are options of ours by dotted key, ``rows`` the names of tensors, ``channels`` those of every level,
    and ``notes`` what was assumed.
    """

    overrides: dict[str, Any]
    rows: list[Row]
    channels: int
    notes: list[str]


def release_of(files: SourceFiles) -> Release | None:
    """Find the release that the files are, by its name or their SHA-256; None where they are none."""
    if files.release is not None and files.release.startswith("torchvision:"):
        return find_release(files.release)
    return release_of_file(files.origin.sha256)


def label_categories(num_labels: int, *, background: bool) -> list[Category]:
    """List the classes of a detector whose labels are those of torchvision, of which 0 is background or not used."""
    return category_ids(num_labels)[1:] if background else category_ids(num_labels)


def read_resnet(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Read the options of a ResNet from its tensors.

    Args:
        tensors: of the file.
        prefix: before the names of the ResNet.

    Returns:
        ``name``, ``depth``, ``width``, ``levels``, all that there are, and ``norm``.

    Raises:
        ValueError: another network of the same names: another depth, wide, or with groups.
    """
    blocks = tuple(
        next(i for i in count() if f"{prefix}{stage}.{i}.conv1.weight" not in tensors) for stage in STAGES.values()
    )
    built = tuple(number for number in blocks if number)
    is_deep = f"{prefix}layer1.0.conv3.weight" in tensors
    depths = [
        depth
        for depth, numbers in BLOCKS_PER_STAGE.items()
        if numbers[: len(built)] == built and has_bottlenecks_at(depth) == is_deep
    ]
    if not depths or not any(blocks):
        known = ", ".join(map(str, BLOCKS_PER_STAGE))
        raise ValueError(f"a ResNet with {list(blocks)} blocks, which is of none of the depths {known}")
    width, inner = tensors[f"{prefix}conv1.weight"].shape[0], tensors[f"{prefix}layer1.0.conv2.weight"].shape
    if inner[0] != inner[1] or inner[0] != width:
        raise ValueError(f"a wide ResNet or a ResNeXt (layer1.0.conv2 is {list(inner)}), which Boxwright does not have")
    return {
        "name": "resnet",
        "depth": depths[0],
        "width": width,
        "levels": list(STAGES)[: len(built)],
        "norm": "batch" if f"{prefix}bn1.num_batches_tracked" in tensors else "frozen",
    }


def read_trunk(files: SourceFiles) -> Trunk:
    """Read backbone and FPN of a detector.

    Raises:
        ValueError: another backbone than a ResNet, or other levels than neighbors.
    """
    tensors, notes = files.tensors, list[str]()
    if f"{_BODY}conv1.weight" not in tensors:
        first = next((name for name in tensors if name.startswith("backbone.")), "none")
        raise ValueError(f"a backbone that is no ResNet (its first tensor is {first}), which Boxwright cannot read")
    resnet = read_resnet(tensors, _BODY)
    is_old = f"{_FPN}.inner_blocks.0.weight" in tensors
    names = [f"{_FPN}.inner_blocks.{i}{'' if is_old else '.0'}.weight" for i in range(len(STAGES))]
    laterals = [tensors[name].shape for name in names if name in tensors]
    levels = _find_levels(resnet, [shape[1] for shape in laterals])
    channels = laterals[0][0]
    is_normed = f"{_FPN}.inner_blocks.0.1.running_var" in tensors
    overrides = {f"backbone.{key}": value for key, value in resnet.items() if key != "name"}
    overrides |= {
        "backbone.levels": levels,
        "neck.out_channels": channels,
        "neck.norm": "batch" if is_normed else "none",
        **PREPROCESSING,
    }
    extra = tensors.get(f"{_FPN}.extra_blocks.p6.weight")
    if extra is not None:
        overrides["neck.extra"] = "conv_output" if extra.shape[1] == channels else "conv_input"
        overrides["neck.extra_levels"] = 2
    release = release_of(files)
    if release is None:
        notes.append("sizes of inputs are assumed: input.image_size 800 and input.max_size 1333")
    if resnet["norm"] == "batch":
        overrides["backbone.frozen_stages"] = 0
    elif release is None:
        notes.append(
            "epsilon of the frozen norms is assumed: backbone.norm_eps 1e-5; it is 0 in torchvision's COCO_V1 weights "
            "of Faster R-CNN, Mask R-CNN and RetinaNet, and in what was fine-tuned from them"
        )
    elif release.name in WITHOUT_EPS:
        overrides["backbone.norm_eps"] = 0.0
    return Trunk(overrides, trunk_rows(levels, is_normed=is_normed, is_old=is_old), channels, notes)


def trunk_rows(levels: Sequence[str], *, is_normed: bool, is_old: bool = False) -> list[Row]:
    """Make the rows of backbone and FPN.

    Args:
        levels: that go through the FPN, of neighboring stages.
        is_normed: norms follow the FPN's convolutions.
        is_old: names of releases before torchvision 0.13, ``inner_blocks.0.weight``.
    """
    field = f"c{{n+{levels[0].removeprefix('c')}}}"
    rows = [
        Row(f"{_BODY}{{**}}", "backbone.{**}"),
        Row(f"{_FPN}.extra_blocks.p{{n}}.{{*}}", f"{_NECK}.extra.convs.c{{n}}.{{*}}"),
    ]
    for theirs, ours in (("inner_blocks", "lateral"), ("layer_blocks", "smooth")):
        there, here = f"{_FPN}.{theirs}.{{n}}", f"{_NECK}.pyramid.{ours}.{field}"
        if is_normed:
            rows += [Row(f"{there}.0.{{*}}", f"{here}.conv.{{*}}"), Row(f"{there}.1.{{*}}", f"{here}.norm.{{*}}")]
        else:
            rows.append(Row(f"{there}.{{*}}" if is_old else f"{there}.0.{{*}}", f"{here}.{{*}}"))
    return rows


def write_trunk(detector: Detector) -> list[Row]:
    """Make the rows of a detector's backbone and neck.

    Raises:
        ValueError: torchvision has no such backbone or neck.
    """
    backbone, necks = detector.backbone, list(detector.necks)
    if type(backbone).__name__ != "ResNet" or not isinstance(backbone, ResNetBody):
        raise ValueError(f"torchvision's detectors here have a ResNet, not {type(backbone).__name__}")
    if len(necks) != 1 or not isinstance(necks[0], FPN):
        kinds = ", ".join(type(neck).__name__ for neck in necks) or "none"
        raise ValueError(f"torchvision's detectors here have one FPN as their neck, not {kinds}")
    levels = list(backbone.out_spec)
    stages = list(STAGES)[list(STAGES).index(levels[0]) :][: len(levels)]
    strides = [level.stride for level in backbone.out_spec.values()]
    if levels != stages or strides != [2 ** int(name.removeprefix("c")) for name in levels]:
        raise ValueError(f"torchvision's detectors have neighboring levels that are not dilated, not {levels}")
    return trunk_rows(levels, is_normed=isinstance(necks[0].pyramid.lateral[levels[0]], ConvNorm))


def trunk_options(detector: Detector) -> dict[str, tuple[Any, Any]]:
    """List options of a backbone and an FPN that torchvision has in one form: the value here, and the one there."""
    necks: Any = detector.necks
    is_other = any(block.conv1.stride != (1, 1) for block in _bottlenecks(detector.backbone))
    return {
        "neck.extra_relu": (necks[0].extra.relu, True),
        "backbone.stride_in": ("1x1" if is_other else "3x3", "3x3"),
        **block_options(detector.backbone),
    }


def _bottlenecks(backbone: nn.Module) -> list[Bottleneck]:
    return [block for block in backbone.modules() if isinstance(block, Bottleneck)]


def _find_levels(resnet: Mapping[str, Any], channels: Sequence[int]) -> list[str]:
    """Find the levels that go through the FPN by their channels."""
    expansion = 4 if resnet["depth"] >= 50 else 1
    of_stage = {resnet["width"] * expansion * 2**index: name for index, name in enumerate(STAGES)}
    levels = [of_stage.get(number, "unknown") for number in channels]
    first = list(STAGES).index(levels[0]) if levels and levels[0] in STAGES else 0
    if levels != list(STAGES)[first : first + len(levels)]:
        raise ValueError(
            f"an FPN over levels of {list(channels)} channels, which are no neighboring stages of its ResNet"
        )
    return levels


def count_tower_convs(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Count the convolutions of a tower, in names of any age."""
    return len([name for name in tensors if name.startswith(f"{prefix}.") and tensors[name].ndim == 4])


def check_groups(channels: int) -> None:
    """Check that group norms of so many channels have as many groups here as there, which no tensor says.

    Raises:
        ValueError: they have not.
    """
    if math.gcd(GROUPS, max(1, channels // 2)) != GROUPS:
        raise ValueError(f"group norms of {GROUPS} groups over {channels} channels, which Boxwright does not have")
