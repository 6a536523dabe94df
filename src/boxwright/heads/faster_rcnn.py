"""Faster R-CNN: proposed regions, looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.detections import Detections
from boxwright.layers.option_checks import check_counts, check_shares
from boxwright.ops.finite import check_finite
from boxwright.regions.assignment import SampledRegions, sample_regions, sampled
from boxwright.regions.auxiliary_boxes import build_auxiliary_box_head
from boxwright.regions.box_branch import BoxBranch, BoxPrediction
from boxwright.regions.box_head import BoxHeadKind
from boxwright.regions.box_loss import consistent_losses, region_losses
from boxwright.regions.decode import Found, detect_in_regions, detected, in_original_pixels, within_images
from boxwright.regions.first_stage import RegionProposals
from boxwright.regions.levels import Epsilon
from boxwright.regions.roi_extractor import Fusion, RoIExtractorKind
from boxwright.regions.rpn import RPNOutput
from boxwright.regions.rpn_loss import RPNLoss
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets

__all__ = ["FasterRCNN"]


class FasterRCNNOutput(NamedTuple):
    """What is said of anchors and of regions.

    With targets, ``regions`` are the sampled ones with what is wanted, and ``raw`` is what is said of them on each
    auxiliary level; without, ``found`` are the detections.
    """

    rpn: RPNOutput
    boxes: BoxPrediction
    raw: Sequence[BoxPrediction] = ()
    regions: SampledRegions | None = None
    found: Found | None = None

    def prediction(self) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 4"]]:
        """Scores and corner boxes, in pixels of the network's input; what only fills up has the score 0."""
        found = detected(self.found)
        return found.scores * found.valid, found.boxes


class FasterRCNN(nn.Module):
    """A region proposal network, RoIAlign, and a head that tells classes and boxes of the regions.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the levels; where None, what they have if they share one, else 256. Levels of another width
            are projected to it.
        rpn_convs: 3 x 3 convolutions of the proposal network; 2 in torchvision's V2.
        anchor_scale: side of a level's square anchor, in strides: with stride 32 the coarsest, as of a dilated
            backbone's P6, there is none of 512 pixels.
        pre_nms_top_k: anchors of a level before suppression, in training and in prediction.
        post_nms_top_k: regions of an image after it, in training and in prediction.
        rpn_nms_threshold: IoU above which the worse of two proposals is left out, in [0, 1].
        num_samples: regions of an image that are trained on.
        roi_extractor: from the level that fits a region (``fpn_level``), from all of them (``adaptive``, PANet), or
            from their sum with learned weights (``soft``, AugFPN).
        level_epsilon: of ``fpn_level``: where 1e-6 is added against rounding, ``outside`` of the logarithm
            (torchvision) or ``inside`` (Detectron).
        fusion: of adaptive features, after the first layer.
        coarsest_region_stride: levels beyond are for proposals alone, as P6; so are levels beyond a stride that two
            share, where a dilated backbone ends.
        consistent_weight: of the losses of regions seen on each auxiliary level, as AugFPN's raw laterals, by a branch
            that is used in training only; 0 for none.
        box_head: ``two_linear``, or ``four_conv`` with batch norm (torchvision's V2).
        hidden_dim: width of what it puts out.
        score_threshold: detections that do not exceed it are left out, in [0, 1].
        nms_threshold: IoU above which the worse of two of one class is left out, in [0, 1].
        max_detections: most detections of an image.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, with Lin et al., Feature Pyramid Networks, CVPR 2017, section 4.2.
    Checked against torchvision 0.29.2's fasterrcnn_resnet50_fpn and _v2: proposals, detections, losses on the same
    regions, gradients. Differs in losses that are averages over images, where torchvision averages over the sampled
    anchors and regions of a batch; where a canvas without padding ends within a cell of the finest level: boxes are cut
    there at the end of the cell, up to stride - 1 pixels beyond the canvas, where torchvision cuts them at the canvas;
    in suppression, which at most 20 ``max_detections`` (region, class) pairs of an image enter, the best, where
    torchvision has no bound; and in first weights of the branch's last layers, from normal distributions of 0.01 for
    classes and 0.001 for boxes as in Detectron, where torchvision has those of ``nn.Linear``.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        rpn_convs: int = 1,
        anchor_scale: float = 8.0,
        pre_nms_top_k: tuple[int, int] = (2000, 1000),
        post_nms_top_k: tuple[int, int] = (2000, 1000),
        rpn_nms_threshold: float = 0.7,
        num_samples: int = 512,
        roi_extractor: RoIExtractorKind = "fpn_level",
        level_epsilon: Epsilon = "outside",
        fusion: Fusion = "max",
        coarsest_region_stride: int = 32,
        consistent_weight: float = 0.25,
        box_head: BoxHeadKind = "two_linear",
        hidden_dim: int = 1024,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "num_samples": num_samples, "max_detections": max_detections})
        check_shares({"score_threshold": score_threshold, "nms_threshold": nms_threshold})
        self.num_samples, self.consistent_weight, self.max_detections = num_samples, consistent_weight, max_detections
        self.pre_nms_top_k, self.post_nms_top_k = pre_nms_top_k, post_nms_top_k
        self.detect = partial(
            detect_in_regions,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
        )
        self.first_stage = RegionProposals(
            in_spec,
            channels=channels,
            rpn_convs=rpn_convs,
            anchor_scale=anchor_scale,
            pre_nms_top_k=pre_nms_top_k,
            post_nms_top_k=post_nms_top_k,
            nms_threshold=rpn_nms_threshold,
            coarsest_region_stride=coarsest_region_stride,
        )
        source = self.first_stage.source(roi_extractor, level_epsilon, fusion)
        self.boxes = BoxBranch(source, num_classes, kind=box_head, hidden_dim=hidden_dim)
        self.raw = build_auxiliary_box_head(in_spec, num_classes, hidden_dim=hidden_dim, weight=consistent_weight)
        self.rpn_loss = RPNLoss()

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> FasterRCNNOutput:
        """Propose and detect; with ``targets``, propose, sample and say what ``loss`` needs."""
        maps, rpn, content, proposals = self.first_stage(features, padding_mask, training=targets is not None)
        if targets is not None:
            regions = sample_regions(proposals, targets, num_samples=self.num_samples)
            raw = self.raw(features, regions.boxes, regions.images) if self.raw is not None else ()
            return FasterRCNNOutput(rpn, self.boxes(maps, regions.boxes, regions.images), raw, regions)
        boxes = self.boxes(maps, *proposals.as_rows())
        scores, deltas = boxes.of_images(proposals.scores.shape[0])
        found = self.detect(scores, deltas, proposals, content)
        return FasterRCNNOutput(rpn, boxes, found=found)

    def loss(
        self, output: FasterRCNNOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``objectness`` and ``rpn_box`` of anchors, ``cross_entropy`` and ``smooth_l1`` of regions.

        With auxiliary levels also ``raw_cross_entropy`` and ``raw_smooth_l1``, sums over these levels.

        Args:
            output: made with the same targets.
            targets: one per image.
            totals: of the whole optimizer step; of these targets where None.

        Raises:
            ValueError: the output was made without targets.
        """
        regions, totals = sampled(output.regions), totals or LossTotals.of(targets)
        terms = self.rpn_loss(output.rpn, targets, totals)
        terms |= region_losses(*output.boxes, regions, totals)
        return terms | consistent_losses(output.raw, regions, totals, weight=self.consistent_weight)

    def postprocess(self, output: FasterRCNNOutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """What was found, in pixels of the original images.

        Raises:
            ValueError: the output was made with targets, or the model has diverged.
        """
        check_finite((*output.rpn.logits, *output.rpn.deltas, *output.boxes))
        return in_original_pixels(within_images(detected(output.found), image_sizes), image_sizes)
