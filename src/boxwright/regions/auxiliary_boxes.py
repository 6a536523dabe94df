"""Regions seen on every level by itself, for consistent supervision."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.predictions import InputProjection
from boxwright.regions.box_branch import POOLED, BoxBranch, BoxPrediction
from boxwright.regions.roi_extractor import RoIExtractor, RoISource
from boxwright.structures import Features, Level, Spec


def build_auxiliary_box_head(
    in_spec: Spec, num_classes: int, *, hidden_dim: int, weight: float
) -> AuxiliaryBoxHead | None:
    """The branch of a head whose losses of it have this weight; None where it is 0 or there is no auxiliary level.

    Raises:
        ValueError: the weight is negative, or no number.
    """
    if not weight >= 0:
        raise ValueError(f"consistent_weight is at least 0, not {weight}")
    supervised = weight > 0 and any(level.auxiliary for level in in_spec.values())
    return AuxiliaryBoxHead(in_spec, num_classes, hidden_dim=hidden_dim) if supervised else None


class AuxiliaryBoxHead(nn.Module):
    """One box branch, shared by the auxiliary levels, that sees each region on each of them.

    Trained on what the main branch is trained on, it asks every level for the same meaning before levels are summed.

    Args:
        in_spec: the levels that come in; those that are not auxiliary are left out.
        num_classes: C.
        hidden_dim: width of the branch's vector.

    Raises:
        ValueError: there is no auxiliary level.

    Source: Guo et al., AugFPN, CVPR 2020, section 3.1. Checked against AuxAllLevelRoIExtractor and
    AuxiliarySharedFCBBoxHead of Gus-Guo/AugFPN, commit ffc7e5e.
    """

    def __init__(self, in_spec: Spec, num_classes: int, *, hidden_dim: int) -> None:
        super().__init__()
        raw = {name: Level(level.channels, level.stride) for name, level in in_spec.items() if level.auxiliary}
        self.widths = InputProjection(raw, None)
        sources = [RoISource(self.widths.channels, [level.stride], "fpn_level") for level in raw.values()]
        self.poolings = [RoIExtractor(source, output_size=POOLED) for source in sources]
        self.branch = BoxBranch(sources[0], num_classes, hidden_dim=hidden_dim)

    def forward(
        self, features: Features, boxes: Float[Tensor, "r 4"], images: Int[Tensor, " r"]
    ) -> Sequence[BoxPrediction]:
        """What is said of the regions, level by level."""
        levels = zip(self.widths(features), self.poolings, strict=True)
        vectors = [self.branch.head(pooling([x], boxes, images)) for x, pooling in levels]
        return [self.branch.predicted(x) for x in vectors]
