"""The first of two stages: where a pyramid proposes to look again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.option_checks import check_counts, check_shares
from boxwright.layers.padding import content_size
from boxwright.layers.predictions import InputProjection
from boxwright.regions.levels import Epsilon
from boxwright.regions.proposals import Proposals, select_proposals
from boxwright.regions.roi_extractor import Fusion, RoIExtractorKind, RoISource
from boxwright.regions.rpn import RPN, RPNOutput
from boxwright.structures import Features, Spec


class FirstStage(NamedTuple):
    """What the second stage works on.

    ``maps`` are the levels that regions are pooled from; ``content`` is (height, width) of each image, or of all, in
    pixels of the network's input.
    """

    maps: list[Float[Tensor, "b c _h _w"]]
    rpn: RPNOutput
    content: Float[Tensor, "#b 2"]
    proposals: Proposals


class RegionProposals(nn.Module):
    """Levels of one width, a region proposal network over them, and the choice of the best regions.

    Args:
        in_spec: the levels that come in, fine to coarse.
        channels: width of the levels; where None, what they have if they share one, else 256. Levels of another width
            are projected to it.
        rpn_convs: 3 x 3 convolutions of the proposal network.
        anchor_scale: side of a level's square anchor, in strides.
        pre_nms_top_k: anchors of a level before suppression, in training and in prediction.
        post_nms_top_k: regions of an image after it, in training and in prediction.
        nms_threshold: IoU above which the worse of two is left out, in [0, 1].
        coarsest_region_stride: see ``region_strides``.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3; Lin et al., Feature Pyramid Networks, CVPR 2017, section
    4.1.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        channels: int | None,
        rpn_convs: int,
        anchor_scale: float,
        pre_nms_top_k: tuple[int, int],
        post_nms_top_k: tuple[int, int],
        nms_threshold: float,
        coarsest_region_stride: int,
    ) -> None:
        super().__init__()
        check_counts({"pre_nms_top_k": min(pre_nms_top_k), "post_nms_top_k": min(post_nms_top_k)})
        check_shares({"rpn_nms_threshold": nms_threshold})
        self.pre_nms_top_k, self.post_nms_top_k, self.nms_threshold = pre_nms_top_k, post_nms_top_k, nms_threshold
        self.widths = InputProjection(in_spec, channels)
        self.channels = self.widths.channels
        strides = [in_spec[name].stride for name in self.widths.levels]
        self.finest = strides[0]
        self.region_strides = region_strides(strides, coarsest_region_stride)
        self.rpn = RPN(self.channels, strides, anchor_scale=anchor_scale, num_convs=rpn_convs)

    def source(self, features: RoIExtractorKind, level_epsilon: Epsilon, fusion: Fusion) -> RoISource:
        """The levels that regions are looked at on, used in this way."""
        return RoISource(self.channels, self.region_strides, features, level_epsilon, fusion)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None, *, training: bool) -> FirstStage:
        """Propose.

        Args:
            features: all levels.
            padding_mask: True where there is no image.
            training: which of the two counts of candidates and proposals holds.
        """
        maps = self.widths(features)
        rpn = self.rpn(maps)
        content = content_size(padding_mask, maps[0], self.finest)
        place = 0 if training else 1
        proposals = select_proposals(
            rpn.logits,
            rpn.deltas,
            rpn.anchors,
            content,
            pre_nms_top_k=self.pre_nms_top_k[place],
            post_nms_top_k=self.post_nms_top_k[place],
            nms_threshold=self.nms_threshold,
        )
        return FirstStage(maps[: len(self.region_strides)], rpn, content, proposals)


def region_strides(strides: Sequence[int], coarsest: int) -> list[int]:
    """Of the levels that regions are pooled from; those beyond are for proposals alone, as P6.

    Levels beyond ``coarsest`` are; so are levels beyond a stride that two share. A dilated backbone keeps its stride to
    its end, so that what is coarser was added to it, as P6 of strides 4, 8, 16, 16, 32.

    Args:
        strides: of the levels, fine to coarse.
        coarsest: the coarsest one of those.
    """
    shared = [stride for stride, following in pairwise(strides) if stride == following]
    last = min([coarsest, *shared[-1:]])
    # A pyramid that begins beyond has no other levels to look at.
    return [stride for stride in strides if stride <= last] or list(strides[:1])
