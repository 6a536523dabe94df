"""Features of regions on every auxiliary level, for branches that are used in training only."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.predictions import InputProjection
from boxwright.regions.roi_extractor import RoIExtractor, RoISource
from boxwright.structures import Features, Level, Spec


class AuxiliaryLevels(nn.Module):
    """Auxiliary levels of one width, and the extraction of regions from each of them; a head adds its branch.

    Args:
        in_spec: the levels that come in; those that are not auxiliary are left out.
        output_size: cells per side of a region.

    Raises:
        ValueError: there is no auxiliary level.
    """

    def __init__(self, in_spec: Spec, *, output_size: int) -> None:
        super().__init__()
        levels = {name: Level(level.channels, level.stride) for name, level in in_spec.items() if level.auxiliary}
        self.input_projection = InputProjection(levels, None)
        sources = [RoISource(self.input_projection.channels, [stride]) for stride in self.input_projection.strides]
        self.source = sources[0]
        self.poolings = [RoIExtractor(source, output_size=output_size) for source in sources]

    def extract(
        self, features: Features, boxes: Float[Tensor, "r 4"], images: Int[Tensor, " r"]
    ) -> Iterator[list[Float[Tensor, "r c s s"]]]:
        """Extract the features of the regions, level by level, each a list of one map.

        Args:
            features: maps of all levels.
            boxes: corner boxes in pixels of the network input.
            images: the image of each box.
        """
        for x, pooling in zip(self.input_projection(features), self.poolings, strict=True):
            yield pooling([x], boxes, images)


def needs_auxiliary(in_spec: Spec, weight: float) -> bool:
    """Tell whether a loss on auxiliary levels has a weight, and there are such levels."""
    return bool(weight) and any(level.auxiliary for level in in_spec.values())
