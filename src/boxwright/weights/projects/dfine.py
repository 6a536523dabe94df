"""Structure of a D-FINE: inferred from its tensors, and read from a detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from boxwright.detector import Detector
from boxwright.queries.distributions import UPPER
from boxwright.weights.projects.detr import count_indices
from boxwright.weights.projects.rtdetr import NUM_LEVELS, dotted_options
from boxwright.weights.projects.written_options import check_options

_HGNETS: Mapping[tuple[tuple[int, ...], int], str] = {
    ((1, 1, 2, 1), 64): "hgnetv2_b0",
    ((1, 1, 3, 1), 96): "hgnetv2_b2",
    ((1, 1, 3, 1), 128): "hgnetv2_b4",
    ((1, 2, 5, 2), 128): "hgnetv2_b5",
}
"""Models of timm by the numbers of blocks in their stages, and the channels of the first."""

_SIZES: Mapping[str, str] = {"hgnetv2_b0": "s", "hgnetv2_b2": "m", "hgnetv2_b4": "l", "hgnetv2_b5": "x"}

_EXPANSIONS: Mapping[str, float] = {"n": 0.34, "s": 0.5}
"""Of the published sizes; 1 in the others. Tensors tell a rounded product of it."""


def infer_dfine_options(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Infer the published size that is nearest, and the options of the parts that tensors tell, by dotted key.

    Args:
        tensors: by our names.

    Raises:
        ValueError: the backbone is none that D-FINE has.
    """
    model, num_levels = _infer_backbone(tensors), count_levels(tensors)
    size = "n" if num_levels < NUM_LEVELS else _SIZES[model]
    dim = len(tensors["necks.0.laterals.0.conv.weight"])
    width = len(tensors["necks.0.down_blocks.0.stages.0.1.conv.weight"])
    expansion = _EXPANSIONS.get(size, 1.0)
    last = count_indices(tensors, "head.sides.0.layers.{n}.weight") - 1
    options: dict[str, Any] = {
        "backbone.model": model,
        "backbone.levels": [f"c{6 - i}" for i in range(num_levels, 0, -1)],
        "neck.hidden_dim": dim,
        "neck.num_layers": count_indices(tensors, "necks.0.layers.{n}.norm1.weight"),
        "neck.expansion": expansion if int(dim * expansion) // 2 == width else 2 * width / dim,
        "neck.num_blocks": count_indices(tensors, "necks.0.down_blocks.0.stages.0.0.blocks.{n}.conv3x3.conv.weight"),
        "head.hidden_dim": len(tensors["head.encoder_output.0.weight"]),
        "head.num_bins": len(tensors[f"head.sides.0.layers.{last}.bias"]) // 4 - 1,
        "head.decoder.num_layers": count_indices(tensors, "head.layers.{n}.norm1.weight"),
        "head.decoder.feedforward_dim": len(tensors["head.layers.0.feed_forward.linear1.weight"]),
    }
    if options["neck.num_layers"]:
        options["neck.feedforward_dim"] = len(tensors["necks.0.layers.0.feed_forward.linear1.weight"])
    return size, options


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


def check_upper(tensor: Tensor) -> None:
    """Check that the inner bins of a file end where ours do.

    Raises:
        ValueError: they end elsewhere.
    """
    if float(tensor) != UPPER:
        raise ValueError(f"its inner bins end at {float(tensor):g} sides of the box (decoder.up), and here at {UPPER}")


def _infer_backbone(tensors: Mapping[str, Tensor]) -> str:
    stage = "backbone.body.stages_{stage}.blocks.{{n}}.aggregation.0.conv.weight"
    blocks = tuple(count_indices(tensors, stage.format(stage=i)) for i in range(4))
    channels = len(tensors["backbone.body.stages_0.blocks.0.aggregation.1.conv.weight"])
    if (blocks, channels) not in _HGNETS:
        known = ", ".join(_SIZES)
        raise ValueError(f"its backbone has {', '.join(map(str, blocks))} blocks per stage, and is none of {known}")
    return _HGNETS[blocks, channels]
