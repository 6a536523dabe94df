"""Structure of an RT-DETR: inferred from its tensors, and read from a detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from boxwright.backbones.resnet_vd import BLOCKS_OF_VD
from boxwright.detector import Detector
from boxwright.weights.projects.detr import count_indices
from boxwright.weights.projects.written_options import check_options

NUM_HEADS, NUM_LEVELS = 8, 3
"""Of every released RT-DETR; of their heads no tensor depends on their number."""

HGNETS = {"L": "hgnetv2_b4", "X": "hgnetv2_b5", "H": "hgnetv2_b6"}
"""Models of timm by their sizes in RT-DETR's code."""

_HGNET_BLOCKS = {(1, 1, 3, 1): "L", (1, 2, 5, 2): "X", (2, 3, 6, 3): "H"}
"""Their sizes by the numbers of blocks in their stages."""

_NORM_EPS = 1e-5


def infer_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer what tensors tell of the options of the parts, by dotted key.

    Args:
        tensors: by our names. Points of the deformable attention are told with ``NUM_HEADS`` heads.

    Raises:
        ValueError: the backbone, or the levels, are none that there are here.
    """
    backbone = infer_backbone(tensors, "backbone.")
    levels = count_indices(tensors, "necks.0.projections.c{n}.conv.weight")
    if levels != NUM_LEVELS:
        raise ValueError(f"its encoder takes {levels} levels, and Boxwright's backbones give {NUM_LEVELS}")
    classes = len(tensors["head.classes.0.bias"])
    if (selected := len(tensors["head.encoder_classes.bias"])) != classes:
        raise ValueError(f"its encoder tells {selected} classes apart and its decoder {classes}; here both are alike")
    dim = len(tensors["necks.0.projections.c3.conv.weight"])
    offsets = len(tensors["head.layers.0.cross_attention.sampling_offsets.bias"])
    options: dict[str, Any] = {
        **{f"backbone.{name}": value for name, value in backbone.items() if name != "name"},
        "neck.hidden_dim": dim,
        "neck.num_layers": count_indices(tensors, "necks.0.layers.{n}.norm1.weight"),
        "neck.expansion": len(tensors["necks.0.down_blocks.0.conv1.conv.weight"]) / dim,
        "neck.num_blocks": count_indices(tensors, "necks.0.down_blocks.0.blocks.{n}.conv3x3.conv.weight"),
        "head.hidden_dim": len(tensors["head.encoder_output.0.weight"]),
        "head.decoder.num_layers": count_indices(tensors, "head.layers.{n}.norm1.weight"),
        "head.decoder.feedforward_dim": len(tensors["head.layers.0.feed_forward.linear1.weight"]),
        "head.decoder.num_points": max(1, offsets // (2 * NUM_HEADS * NUM_LEVELS)),
    }
    if options["neck.num_layers"]:
        options["neck.feedforward_dim"] = len(tensors["necks.0.layers.0.feed_forward.linear1.weight"])
    return options


def infer_backbone(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Infer the backbone: a ResNet-vd with its depth and width, or the HGNetv2 of timm.

    Args:
        tensors: by our names.
        prefix: before the names of the backbone.

    Raises:
        ValueError: none that there is here.
    """
    body = f"{prefix}body."
    if not any(name.startswith(body) for name in tensors):
        depth, width = _infer_resnet_vd(tensors, prefix)
        return {"name": "resnet_vd", "depth": depth, "width": width}
    blocks = tuple(
        count_indices(tensors, f"{body}stages_{stage}.blocks.{{n}}.aggregation.0.conv.weight") for stage in range(4)
    )
    if blocks not in _HGNET_BLOCKS:
        raise ValueError(
            f"its backbone has {', '.join(map(str, blocks))} blocks per stage, and is no HGNetv2 of size "
            f"{', '.join(HGNETS)}"
        )
    return {"name": "timm", "model": HGNETS[_HGNET_BLOCKS[blocks]]}


def _infer_resnet_vd(tensors: Mapping[str, Tensor], prefix: str) -> tuple[int, int]:
    blocks = tuple(count_indices(tensors, f"{prefix}stages.c{level}.{{n}}.conv1.conv.weight") for level in range(2, 6))
    bottlenecks = f"{prefix}stages.c2.0.conv3.conv.weight" in tensors
    depths = [depth for depth, counts in BLOCKS_OF_VD.items() if counts == blocks and (depth >= 50) == bottlenecks]
    if not depths:
        kind = "bottlenecks" if bottlenecks else "basic blocks"
        raise ValueError(
            f"its backbone has {', '.join(map(str, blocks))} {kind} per stage, and is no ResNet-vd of depth "
            f"{', '.join(map(str, BLOCKS_OF_VD))}"
        )
    return depths[0], len(tensors[f"{prefix}stages.c2.0.conv1.conv.weight"])


def nearest_recipe(options: Mapping[str, Any], family: str) -> str:
    """Name the recipe that is nearest.

    Args:
        options: of the parts, by dotted key.
        family: ``rtdetr`` or ``rtdetrv2``.
    """
    if "backbone.model" in options:
        return f"{family}_{next(size for size, model in HGNETS.items() if model == options['backbone.model']).lower()}"
    depth, is_narrow = options["backbone.depth"], options["neck.expansion"] < 1
    return f"{family}_r{depth}{'_m' if depth == 50 and is_narrow else ''}"


def read_options(detector: Detector, *, has_hgnet: bool = False) -> dict[str, Any]:
    """Read the options of the parts of a detector that other projects' RT-DETR has too, by dotted key.

    Args:
        detector: to write.
        has_hgnet: the other project has HGNetv2 as a backbone too.

    Raises:
        ValueError: another kind of detector, or options that they do not have, in one line.
    """
    if detector.recipe is None:
        raise ValueError("a detector that was put together by hand has no recipe to read its structure from")
    recipe = detector.recipe.to_dict()
    parts = [recipe["backbone"], *recipe["neck"], recipe["head"]]
    names = [part["name"] for part in parts]
    is_hgnet = has_hgnet and parts[0].get("model") in HGNETS.values()
    if names != ["timm" if is_hgnet else "resnet_vd", "hybrid_encoder", "rtdetr"]:
        known = "ResNet-vd or HGNetv2" if has_hgnet else "ResNet-vd"
        raise ValueError(f"not an RT-DETR with a {known} and its hybrid encoder, but {' > '.join(names)}")
    options = dotted_options(dict(zip(("backbone", "neck", "head"), parts, strict=True)))
    needed = {
        "backbone.levels": (list(options["backbone.levels"]), ["c3", "c4", "c5"]),
        "backbone.norm_eps": (options.get("backbone.norm_eps", _NORM_EPS), _NORM_EPS),
        "neck.variant": (options["neck.variant"], "E"),
    }
    check_options(needed)
    return options


def dotted_options(slots: Mapping[str, Any]) -> dict[str, Any]:
    """List the options of parts by dotted key."""
    return dict(_dotted("", slots))


def _dotted(prefix: str, values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value
