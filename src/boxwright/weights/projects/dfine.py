"""Structure of a D-FINE: inferred from its tensors, and read from a detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boxwright.detector import Detector
from boxwright.queries.distributions import UPPER
from boxwright.weights.projects.detr import count_indices
from boxwright.weights.projects.rtdetr import NUM_LEVELS, dotted_options
from boxwright.weights.projects.rtdetr_authors import (
    IMAGE_SIZE,
    STRIDES,
    make_constants,
    read_image_size,
    read_points,
)
from boxwright.weights.projects.written_options import check_options

_HGNETS: Mapping[tuple[tuple[int, ...], int, int], str] = {
    ((1, 1, 2, 1), 64, 1024): "hgnetv2_b0",
    ((1, 1, 3, 1), 96, 1536): "hgnetv2_b2",
    ((1, 1, 3, 1), 128, 2048): "hgnetv2_b4",
    ((1, 2, 5, 2), 128, 2048): "hgnetv2_b5",
    # Without the last stage, as DEIMv2's Pico, Femto and Atto.
    ((1, 1, 2), 64, 512): "hgnetv2_b0",
    ((1, 1, 1), 64, 512): "hgnetv2_femto",
    ((1, 1, 1), 64, 256): "hgnetv2_atto",
}
"""Models of timm by the numbers of blocks in their stages, and the channels of the first and the last."""

_SIZES: Mapping[str, str] = {"hgnetv2_b0": "s", "hgnetv2_b2": "m", "hgnetv2_b4": "l", "hgnetv2_b5": "x"}

_EXPANSIONS = (0.34, 0.5, 0.67, 0.75, 1.0, 1.5)
"""Of published sizes. Tensors tell a rounded product of it."""


def infer_dfine_options(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Infer the published size that is nearest, and the options of the parts that tensors tell, by dotted key.

    Args:
        tensors: by our names.

    Raises:
        ValueError: the backbone is none that D-FINE has.
    """
    model, num_levels = infer_hgnet(tensors), count_levels(tensors)
    if model not in _SIZES:
        raise ValueError(f"its backbone is {model}, and D-FINE's are {', '.join(_SIZES)}")
    options = {
        "backbone.model": model,
        "backbone.levels": [f"c{6 - i}" for i in range(num_levels, 0, -1)],
        **infer_encoder_options(tensors),
        **infer_decoder_options(tensors),
    }
    return "n" if num_levels < NUM_LEVELS else _SIZES[model], options


def infer_encoder_options(
    tensors: Mapping[str, Tensor], *, slot: str = "neck", path: str = "necks.0"
) -> dict[str, Any]:
    """Infer the options of the hybrid encoder but for its fusion, by dotted key.

    Args:
        tensors: by our names.
        slot: of the encoder, in keys.
        path: of the encoder, in names.
    """
    dim = len(tensors[f"{path}.laterals.0.conv.weight"])
    options = {
        "hidden_dim": dim,
        "num_layers": count_indices(tensors, f"{path}.layers.{{n}}.norm1.weight"),
        **infer_fusion_options(tensors, path, dim),
    }
    if options["num_layers"]:
        options["feedforward_dim"] = len(tensors[f"{path}.layers.0.feed_forward.linear1.weight"])
    return {f"{slot}.{name}": value for name, value in options.items()}


def infer_fusion_options(tensors: Mapping[str, Tensor], path: str, dim: int) -> dict[str, Any]:
    """Infer the options of an encoder's fusion blocks, by name.

    Args:
        tensors: by our names.
        path: of the encoder, in names.
        dim: width of the encoder.
    """
    stage = f"{path}.down_blocks.0.stages.0.0"
    num_blocks = count_indices(tensors, f"{stage}.blocks.{{n}}.conv3x3.conv.weight")
    width = len(tensors[f"{stage}.blocks.0.conv3x3.conv.weight"])
    fitting = (expansion for expansion in _EXPANSIONS if int(dim * expansion) // 2 == width)
    return {"expansion": next(fitting, 2 * width / dim), "num_blocks": num_blocks}


def infer_decoder_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the options of the head but for those of its sampling, by dotted key.

    Args:
        tensors: by our names.
    """
    last = count_indices(tensors, "head.sides.0.layers.{n}.weight") - 1
    options: dict[str, Any] = {
        "head.hidden_dim": tensors["head.encoder_classes.weight"].shape[1],
        "head.num_bins": len(tensors[f"head.sides.0.layers.{last}.bias"]) // 4 - 1,
        "head.decoder.num_layers": count_indices(tensors, "head.layers.{n}.norm1.weight"),
        "head.decoder.feedforward_dim": len(tensors["head.layers.0.feed_forward.linear1.weight"]),
    }
    if "head.denoising_classes.weight" not in tensors:
        options["head.denoising.num_queries"] = 0
    return options


def count_levels(tensors: Mapping[str, Tensor]) -> int:
    """Count the levels that the encoder takes."""
    return count_indices(tensors, "necks.0.projections.c{n}.conv.weight")


def read_dfine_options(detector: Detector) -> dict[str, Any]:
    """Read the options of a D-FINE that its authors' code has too, by dotted key.

    Args:
        detector: to write.

    Raises:
        ValueError: another kind of detector, or options that they do not have, in one line.
    """
    if detector.recipe is None:
        raise ValueError("a detector that was put together by hand has no recipe to read its structure from")
    recipe = detector.recipe.to_dict()
    parts = [recipe["backbone"], *recipe["neck"], recipe["head"]]
    names = [part["name"] for part in parts]
    if names != ["timm", "hybrid_encoder", "dfine"] or parts[0].get("model") not in _SIZES:
        raise ValueError(f"not a D-FINE with an HGNetv2 and its hybrid encoder, but {' > '.join(names)}")
    options = dotted_options(dict(zip(("backbone", "neck", "head"), parts, strict=True)))
    levels = list(options["backbone.levels"])
    needed = {
        "backbone.levels": (levels, ["c3", "c4", "c5"][-len(levels) :]),
        "backbone.output_stride": (options["backbone.output_stride"], 32),
        "neck.variant": (options["neck.variant"], "E"),
        "neck.fusion": (options["neck.fusion"], "elan"),
        "head.decoder.offset_scale": (options["head.decoder.offset_scale"], 0.5),
    }
    check_options(needed)
    return options


def read_constants(tensors: Mapping[str, Tensor], num_levels: int) -> tuple[dict[str, Any], list[str]]:
    """Read what constants of the decoder tell: options by dotted key, and what is assumed where there are none.

    Args:
        tensors: by their names.
        num_levels: that the decoder takes; the last has stride 32.

    Raises:
        ValueError: the inner bins end elsewhere than ours.
    """
    options, assumptions = {**read_points(tensors), **read_bins(tensors, "decoder.")}, list[str]()
    if "decoder.anchors" in tensors:
        options["input.image_size"] = read_image_size(tensors["decoder.anchors"], STRIDES[-num_levels:])
    else:
        assumptions.append(f"inputs of {IMAGE_SIZE} pixels (input.image_size)")
    return options, assumptions


def read_bins(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Read the scale of the bins, by dotted key; nothing where it is not stored.

    Args:
        tensors: by their names.
        prefix: before the names of the constants.

    Raises:
        ValueError: the inner bins end elsewhere than ours.
    """
    upper, scale = f"{prefix}up", f"{prefix}reg_scale"
    if upper in tensors and (end := float(tensors[upper])) != UPPER:
        raise ValueError(f"its inner bins end at {end:g} sides of the box ({upper}), and here at {UPPER}")
    return {"head.bin_scale": float(tensors[scale])} if scale in tensors else {}


def write_constants(options: Mapping[str, Any], image_size: int, num_levels: int) -> dict[str, Tensor]:
    """Make the constants of the decoder; those of the bins stand in two places.

    Args:
        options: of the parts, by dotted key.
        image_size: side of inputs.
        num_levels: that the decoder takes; the last has stride 32.
    """
    values = {"up": UPPER, "reg_scale": options["head.bin_scale"]}
    bins = {f"decoder.{inside}{name}": torch.tensor([x]) for name, x in values.items() for inside in ("", "decoder.")}
    return make_constants(options, image_size, STRIDES[-num_levels:]) | bins


def infer_hgnet(tensors: Mapping[str, Tensor]) -> str:
    """Infer the HGNetv2: its name in timm, or of its cuts here.

    Args:
        tensors: by our names.

    Raises:
        ValueError: none that there is here.
    """
    block = "backbone.body.stages_{stage}.blocks.{{n}}.aggregation.{layer}.conv.weight"
    counts = (count_indices(tensors, block.format(stage=i, layer=0)) for i in range(4))
    blocks = tuple(count for count in counts if count)
    names = (block.format(stage=i, layer=1).format(n=0) for i in (0, len(blocks) - 1))
    first, last = (len(tensors[name]) for name in names)
    if (blocks, first, last) not in _HGNETS:
        known = ", ".join(dict.fromkeys(_HGNETS.values()))
        raise ValueError(f"its backbone has {', '.join(map(str, blocks))} blocks per stage, and is none of {known}")
    return _HGNETS[blocks, first, last]
