"""Files of RT-DETR's authors in our words, and the way back: what both versions have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from boxwright.detector import Detector
from boxwright.layers.deformable_attention import spread_points
from boxwright.layers.tokens import flatten_levels
from boxwright.queries.selection import make_anchors
from boxwright.structures import Category
from boxwright.weights.labels import coco_categories
from boxwright.weights.projects.rtdetr import NUM_LEVELS, infer_options, nearest_recipe
from boxwright.weights.projects.rtdetr_names import Version, make_table
from boxwright.weights.projects.written_options import check_options
from boxwright.weights.source import SourceFiles, SourceModel

IMAGE_SIZE = 640

STRIDES = (8, 16, 32)

DISCRETE = "_dsp"
"""In the names of released files with discrete sampling, which no tensor tells."""

_DEEP = 2
"""The last layer of the network that encodes references where it has two hidden ones."""

_SCALE = "decoder.decoder.layers.0.cross_attn.num_points_scale"


def describe_authors(files: SourceFiles, version: Version) -> SourceModel:
    """Describe a detector of the authors.

    Raises:
        ValueError: a variant that there is no counterpart of here.
    """
    table = make_table(version)
    located = {ours: files.tensors[theirs] for ours, theirs in table.locate(files.tensors).items()}
    options = infer_options(located)
    family, assumptions = "rtdetr" if version == 1 else "rtdetrv2", []
    if f"head.query_positions.layers.{_DEEP}.weight" in located:
        options |= {"head.decoder.reference_encoding": "deep", "head.decoder.activation": "silu"}
        assumptions.append("SiLU in its decoder, as in DEIM's detectors that encode boxes so (head.decoder.activation)")
        family = family if "backbone.model" in options else "deim_rtdetrv2"
    recipe = nearest_recipe(options, family)
    if recipe.endswith("_m") and options["head.decoder.num_layers"] == 6:
        assumptions.append("3 of its 6 decoder layers predict, as the authors' do (head.decoder.eval_layers)")
    else:
        options["head.decoder.eval_layers"] = None
    if version == 2:
        assumptions += _add_constants(options, files)
    else:
        assumptions.append("8 attention heads (neck.num_heads, head.decoder.num_heads, head.decoder.num_points)")
    if "decoder.anchors" not in files.tensors:
        assumptions.append(f"inputs of {IMAGE_SIZE} pixels (input.image_size)")
    categories, note = name_unnamed_classes(len(located["head.classes.0.bias"]))
    if "head.denoising_classes.weight" not in located:
        options["head.denoising.num_queries"] = 0
    return SourceModel(
        recipe=recipe, overrides=options, categories=categories, table=table, assumptions=(*assumptions, note)
    )


def check_writable(options: Mapping[str, Any], version: Version) -> None:
    """Check that the authors' code of a version has these options.

    Raises:
        ValueError: it has not, in one line.
    """
    is_deep = options["head.decoder.reference_encoding"] == "deep"
    needed: dict[str, tuple[Any, Any]] = {
        "head.decoder.offset_scale": (options["head.decoder.offset_scale"], 0.5),
        # DEIM's have both, and no tensor tells the second.
        "head.decoder.activation": (options["head.decoder.activation"], "silu" if is_deep else "relu"),
    }
    if version == 1:
        needed["head.decoder.reference_encoding"] = (options["head.decoder.reference_encoding"], "wide")
        needed["head.decoder.sampling_method"] = (options["head.decoder.sampling_method"], "default")
    check_options(needed)
    points = spread_points(options["head.decoder.num_points"], NUM_LEVELS)
    if version == 1 and len(set(points)) > 1:
        raise ValueError(f"head.decoder.num_points is {list(points)}, and has to be one number there; see rtdetrv2")


def list_weights(detector: Detector, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """List the tensors of a detector that are there in theirs too: without denoising, not its classes."""
    without = () if options["head.denoising.num_queries"] else ("head.denoising_classes.weight",)
    return {name: tensor for name, tensor in detector.state_dict().items() if name not in without}


def make_constants(options: Mapping[str, Any], image_size: int, strides: Sequence[int] = STRIDES) -> dict[str, Tensor]:
    """Compute the constants in files of version 2, which their code asks for."""
    maps = [torch.zeros(1, 1, image_size // stride, image_size // stride) for stride in strides]
    anchors = make_anchors(flatten_levels(maps, None), by_ratio=True)
    constants = {"decoder.anchors": anchors.boxes, "decoder.valid_mask": anchors.valid}
    return constants | make_scales(options, options["head.decoder.num_layers"], _SCALE, len(strides))


def make_scales(
    options: Mapping[str, Any], num_layers: int, name: str, num_levels: int = NUM_LEVELS
) -> dict[str, Tensor]:
    """Compute one over the number of points of its level, for each point: constants of every layer in version 2.

    Args:
        options: of the parts, by dotted key.
        num_layers: of the decoder.
        name: of the constant in files, of the first layer.
        num_levels: of the maps.
    """
    points = spread_points(options["head.decoder.num_points"], num_levels)
    scale = torch.tensor([1 / count for count in points for _ in range(count)])
    # Each its own memory: safetensors writes nothing twice.
    return {name.replace(".0.", f".{layer}."): scale.clone() for layer in range(num_layers)}


def _add_constants(options: dict[str, Any], files: SourceFiles) -> list[str]:
    """Add what the constants of version 2 tell, and list what was assumed besides."""
    assumptions = ["8 attention heads in the encoder (neck.num_heads)"]
    options |= read_points(files.tensors)
    if "decoder.anchors" in files.tensors:
        options["input.image_size"] = read_image_size(files.tensors["decoder.anchors"], STRIDES)
    if DISCRETE in PurePath(files.origin.source).name:
        options["head.decoder.sampling_method"] = "discrete"
        assumptions.append("discrete sampling, from the name of the file (head.decoder.sampling_method)")
    else:
        assumptions.append("bilinear sampling, as no tensor says otherwise (head.decoder.sampling_method)")
    return assumptions


def read_points(tensors: Mapping[str, Tensor], name: str = _SCALE) -> dict[str, Any]:
    """Read the points of each level, and the heads, off the constants of version 2; nothing where there are none.

    Args:
        tensors: by their names.
        name: of the constants of the first layer.
    """
    if name not in tensors:
        return {}
    points, scale = [], tensors[name].tolist()
    while scale:
        points.append(round(1 / scale[0]))
        scale = scale[points[-1] :]
    offsets = len(tensors[name.replace("num_points_scale", "sampling_offsets.bias")])
    return {
        "head.decoder.num_points": points[0] if len(set(points)) == 1 else points,
        "head.decoder.num_heads": offsets // (2 * sum(points)),
    }


def read_image_size(anchors: Tensor, strides: Sequence[int]) -> int:
    """Read the side of square inputs off the number of anchors, one for each cell of these strides."""
    return strides[-1] * math.isqrt(anchors.shape[1] // sum((strides[-1] // stride) ** 2 for stride in strides))


def name_unnamed_classes(num_classes: int) -> tuple[list[Category], str]:
    """Name classes that the file does not, and say how."""
    categories = coco_categories()
    if num_classes == len(categories):
        return categories, "its 80 classes are COCO's"
    note = f"the names of its {num_classes} classes are not in the file: they are called class_0 and so on"
    return [Category(i, f"class_{i}") for i in range(num_classes)], note
