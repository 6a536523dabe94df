"""ResNets of other projects: depth and width by shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boxwright.layers.resnet import BLOCKS_PER_STAGE, STAGES


def measure_resnet(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Read depth and width of a ResNet, as options of ours, from the shapes of its tensors.

    Args:
        shapes: by our names, with ``backbone.`` before them.

    Raises:
        ValueError: it is no ResNet that there is a counterpart of here.
    """
    counts = tuple(
        len({name.split(".")[2] for name in shapes if name.startswith(f"backbone.{stage}.")})
        for stage in STAGES.values()
    )
    has_bottlenecks = "backbone.layer1.0.conv3.weight" in shapes
    depths = [
        depth for depth, blocks in BLOCKS_PER_STAGE.items() if blocks == counts and (depth >= 50) == has_bottlenecks
    ]
    if not depths or not shapes.get("backbone.conv1.weight"):
        raise ValueError(f"its backbone is no ResNet of {', '.join(map(str, BLOCKS_PER_STAGE))} layers")
    return {"depth": depths[0], "width": shapes["backbone.conv1.weight"][0]}
