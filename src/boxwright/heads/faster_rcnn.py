"""Faster R-CNN: proposed regions, looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.box_branch import BoxBranch, BoxPrediction
from boxwright.layers.box_head import BoxHead, BoxHeadKind, Fusion
from boxwright.layers.dense_tower import EqualWidths
from boxwright.layers.padding import content_size
from boxwright.layers.region_pooling import RegionFeatures, RegionPooling
from boxwright.layers.rpn import RPN, RPNOutput
from boxwright.losses.region_assignment import TrainingRegions, assign_regions
from boxwright.losses.region_loss import region_losses
from boxwright.losses.rpn_loss import RPNLoss
from boxwright.ops.box_deltas import decode_deltas
from boxwright.ops.boxes import at_least_float32
from boxwright.ops.proposals import Proposals, select_proposals
from boxwright.ops.region_detections import Found, in_original_pixels, select_detections
from boxwright.structures import Detections, Features, ImageSize, LossTotals, Spec, Targets

__all__ = ["FasterRCNN"]

DELTA_WEIGHTS = (10.0, 5.0)
POOLED = 7


class FasterRCNNOutput(NamedTuple):
    """What is said of anchors and of regions.

    With targets, ``regions`` are the sampled ones, with what is wanted; without, ``found`` are the detections.
    """

    rpn: RPNOutput
    boxes: BoxPrediction
    regions: TrainingRegions | None
    found: Found | None

    def prediction(self) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 4"]]:
        """Scores and corner boxes, in pixels of the network's input; what only fills up has the score 0."""
        assert self.found is not None
        return self.found.scores * self.found.usable, self.found.boxes


class FasterRCNN(nn.Module):
    """A region proposal network, RoIAlign, and a head that tells classes and boxes of the regions.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the levels; where None, what they have if they share one, else 256. Levels of another width
            are projected to it.
        rpn_convs: 3 x 3 convolutions of the proposal network; 2 in torchvision's V2.
        anchor_scale: side of a level's square anchor, in strides.
        num_candidates: anchors of a level before suppression, in training and in prediction.
        num_proposals: regions of a picture after it, in training and in prediction.
        rpn_nms_threshold: IoU above which the worse of two proposals is left out, in [0, 1].
        num_samples: regions of a picture that are trained on.
        region_features: from the level that fits a region (``fpn_level``), from all of them (``adaptive``, PANet), or
            from their sum with learnt weights (``soft``, AugFPN).
        fusion: of adaptive features, after the first layer.
        coarsest_region_stride: levels beyond are for proposals alone, as P6.
        box_head: ``two_linear``, or ``four_conv`` with batch norm (torchvision's V2).
        hidden_dim: width of what it puts out.
        score_threshold: detections that do not exceed it are left out, in [0, 1].
        nms_threshold: IoU above which the worse of two of one class is left out, in [0, 1].
        max_detections: most detections of a picture.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, with Lin et al., Feature Pyramid Networks, CVPR 2017, section 4.2.
    Checked against torchvision 0.29.2's fasterrcnn_resnet50_fpn and _v2: proposals, detections, losses on the same
    regions, gradients. Differs in losses that are averages over pictures, where torchvision averages over the sampled
    anchors and regions of a batch.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        rpn_convs: int = 1,
        anchor_scale: float = 8.0,
        num_candidates: tuple[int, int] = (2000, 1000),
        num_proposals: tuple[int, int] = (2000, 1000),
        rpn_nms_threshold: float = 0.7,
        num_samples: int = 512,
        region_features: RegionFeatures = "fpn_level",
        fusion: Fusion = "max",
        coarsest_region_stride: int = 32,
        box_head: BoxHeadKind = "two_linear",
        hidden_dim: int = 1024,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        _check_counts(num_classes=num_classes, num_samples=num_samples, max_detections=max_detections)
        _check_counts(num_candidates=min(num_candidates), num_proposals=min(num_proposals), hidden_dim=hidden_dim)
        _check_shares(rpn_nms_threshold=rpn_nms_threshold, score_threshold=score_threshold, nms_threshold=nms_threshold)
        self.num_candidates, self.num_proposals, self.num_samples = num_candidates, num_proposals, num_samples
        self.rpn_nms_threshold, self.nms_threshold = rpn_nms_threshold, nms_threshold
        self.score_threshold, self.max_detections = score_threshold, max_detections
        self.widths = EqualWidths(in_spec, channels)
        strides = [in_spec[name].stride for name in self.widths.levels]
        self.finest = strides[0]
        # A pyramid that begins beyond has no other levels to look at.
        self.num_region_levels = max(1, sum(stride <= coarsest_region_stride for stride in strides))
        region_strides = strides[: self.num_region_levels]
        self.rpn = RPN(self.widths.channels, strides, anchor_scale=anchor_scale, num_convs=rpn_convs)
        pooling = RegionPooling(self.widths.channels, region_strides, output_size=POOLED, features=region_features)
        head = BoxHead(
            self.widths.channels,
            POOLED,
            num_maps=pooling.num_outputs,
            kind=box_head,
            hidden_dim=hidden_dim,
            fusion=fusion,
        )
        self.boxes = BoxBranch(pooling, head, num_classes)
        self.rpn_loss = RPNLoss()

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> FasterRCNNOutput:
        """Propose and detect; with ``targets``, propose, sample and say what ``loss`` needs."""
        maps = self.widths(features)
        rpn = self.rpn(maps)
        content = content_size(padding_mask, maps[0], self.finest)
        proposals = self._propose(rpn, content, training=targets is not None)
        region_maps = maps[: self.num_region_levels]
        if targets is not None:
            regions = assign_regions(proposals, targets, num_samples=self.num_samples)
            return FasterRCNNOutput(rpn, self.boxes(region_maps, regions.boxes, regions.images), regions, None)
        images = torch.arange(maps[0].shape[0], device=maps[0].device)[:, None].expand(proposals.scores.shape)
        boxes = self.boxes(region_maps, proposals.boxes.flatten(0, 1), images.flatten())
        return FasterRCNNOutput(rpn, boxes, None, self._found(boxes, proposals, content))

    def loss(
        self, output: FasterRCNNOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``objectness`` and ``rpn_box`` of anchors, ``cross_entropy`` and ``smooth_l1`` of regions.

        Args:
            output: made with the same targets.
            targets: one per picture.
            totals: of the whole optimiser step; of these targets where None.
        """
        assert output.regions is not None
        totals = totals or LossTotals.of(targets)
        rpn = output.rpn
        terms = self.rpn_loss(
            torch.cat(rpn.logits, 1), torch.cat(rpn.deltas, 1), torch.cat(rpn.anchors), targets, totals
        )
        return terms | region_losses(*output.boxes, output.regions, totals, weights=DELTA_WEIGHTS)

    def postprocess(self, output: FasterRCNNOutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """What was found, in pixels of the original pictures."""
        assert output.found is not None
        return in_original_pixels(output.found, image_sizes)

    def _propose(self, rpn: RPNOutput, content: Float[Tensor, "#b 2"], *, training: bool) -> Proposals:
        place = 0 if training else 1
        return select_proposals(
            *rpn,
            content,
            num_candidates=self.num_candidates[place],
            num_proposals=self.num_proposals[place],
            nms_threshold=self.rpn_nms_threshold,
        )

    def _found(self, boxes: BoxPrediction, proposals: Proposals, content: Float[Tensor, "#b 2"]) -> Found:
        shape = proposals.scores.shape
        scores = at_least_float32(boxes.logits).softmax(-1)[:, :-1].unflatten(0, shape)
        deltas = boxes.deltas[:, :-1].unflatten(0, shape)
        corners = decode_deltas(deltas, proposals.boxes[:, :, None], weights=DELTA_WEIGHTS)
        limits = content.flip(-1).repeat(1, 2)[:, None, None].to(corners.dtype)
        return select_detections(
            scores * proposals.usable[..., None],
            torch.minimum(corners.clamp(min=0), limits),
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_candidates=20 * self.max_detections,
            max_detections=self.max_detections,
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is at least 1, not {count}")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is in [0, 1], not {share}")
