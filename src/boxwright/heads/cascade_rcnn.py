"""Cascade R-CNN: regions looked at again and again, each time more closely."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.detections import Detections
from boxwright.layers.option_checks import check_counts, check_shares
from boxwright.ops.box_deltas import Weights, decode_deltas
from boxwright.ops.boxes import clip_to_sizes
from boxwright.ops.finite import check_finite
from boxwright.regions.assignment import SampledRegions, regions_to_proposals, sample_regions, sampled
from boxwright.regions.box_branch import BoxBranch, BoxPrediction
from boxwright.regions.box_head import BoxHeadKind
from boxwright.regions.box_loss import region_losses
from boxwright.regions.decode import Found, detect_in_regions, detected, in_original_pixels, within_images
from boxwright.regions.first_stage import FirstStage, RegionProposals
from boxwright.regions.levels import Epsilon
from boxwright.regions.roi_extractor import Fusion, RoIExtractorKind
from boxwright.regions.rpn import RPNOutput
from boxwright.regions.rpn_loss import RPNLoss
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets

__all__ = ["CascadeRCNN"]


class StageOutput(NamedTuple):
    """What one stage says of its regions; with targets, ``regions`` are these, with what is wanted."""

    boxes: BoxPrediction
    regions: SampledRegions | None = None


class CascadeRCNNOutput(NamedTuple):
    """What is said of anchors and, stage after stage, of regions; without targets, ``found`` are the detections."""

    rpn: RPNOutput
    stages: Sequence[StageOutput]
    found: Found | None = None

    def prediction(self) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 4"]]:
        """Scores and corner boxes, in pixels of the network's input; what only fills up has the score 0."""
        found = detected(self.found)
        return found.scores * found.valid, found.boxes


class CascadeRCNN(nn.Module):
    """A region proposal network and box branches in a row: each looks at the boxes of the one before.

    Stage t is trained on what the boxes of stage t - 1 became, with a higher IoU for its objects and deviations
    multiplied by t times (10, 5); no gradient passes through boxes. A prediction has the boxes of the last stage, and
    as scores the means of what the stages say, each of its own regions.

    Args:
        in_spec: the levels that come in, fine to coarse; auxiliary ones are left out.
        num_classes: C.
        stage_ious: of each stage, the least IoU of a region with its object, in [0, 1].
        stage_weights: of each stage's losses.
        smooth_l1_beta: of the stages: distance from which smooth L1 is linear; 0 for L1 (detectron2).
        channels: width of the levels; where None, what they have if they share one, else 256. Levels of another width
            are projected to it.
        rpn_convs: 3 x 3 convolutions of the proposal network.
        anchor_scale: side of a level's square anchor, in strides: with stride 32 the coarsest, as of a dilated
            backbone's P6, there is none of 512 pixels.
        pre_nms_top_k: anchors of a level before suppression, in training and in prediction.
        post_nms_top_k: regions of an image after it, in training and in prediction.
        rpn_nms_threshold: IoU above which the worse of two proposals is left out, in [0, 1].
        num_samples: regions of an image that each stage is trained on.
        roi_extractor: from the level that fits a region (``fpn_level``), from all of them (``adaptive``, PANet), or
            from their sum with learned weights (``soft``, AugFPN).
        level_epsilon: of ``fpn_level``: where 1e-6 is added against rounding, ``outside`` of the logarithm
            (torchvision) or ``inside`` (Detectron).
        fusion: of adaptive features, after the first layer.
        coarsest_region_stride: levels beyond are for proposals alone, as P6; so are levels beyond a stride that two
            share, where a dilated backbone ends.
        box_head: of each stage: ``two_linear``, or ``four_conv`` with batch norm (torchvision's V2).
        hidden_dim: width of what it puts out.
        score_threshold: detections that do not exceed it are left out, in [0, 1].
        nms_threshold: IoU above which the worse of two of one class is left out, in [0, 1].
        max_detections: most detections of an image.

    Raises:
        ValueError: there is no stage, or not one weight for each.

    Source: Cai and Vasconcelos, Cascade R-CNN, CVPR 2018, sections 4 and 5.1. Checked against mmdetection 3.3.0's
    CascadeRoIHead: losses of each stage on the same samples, refined boxes, logits, detections. Factors of deviations,
    weights of stages and smooth L1 are those of the authors' code (zhaoweicai/Detectron-Cascade-RCNN, 5a297fc). Differs
    from it in scores: there, and in the paper, all classifiers look at the last stage's regions, which runs every box
    head again; each on its own regions, as in detectron2 and mmdetection, costs nothing more (mmdetection averages
    logits instead). Differs in sampling: every stage draws ``num_samples``, as in mmdetection, where the authors' later
    stages train on all that came through the first. Differs in suppression, which at most 20 ``max_detections``
    (region, class) pairs of an image enter, the best, where theirs and torchvision's have no bound. Losses are
    averages over images. Where a canvas without padding ends within a cell of the finest level, boxes are cut at the
    end of the cell, up to stride - 1 pixels beyond the canvas.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        stage_ious: Sequence[float] = (0.5, 0.6, 0.7),
        stage_weights: Sequence[float] = (1.0, 0.5, 0.25),
        smooth_l1_beta: float = 1.0,
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
        box_head: BoxHeadKind = "two_linear",
        hidden_dim: int = 1024,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "num_samples": num_samples, "max_detections": max_detections})
        check_shares({"score_threshold": score_threshold, "nms_threshold": nms_threshold})
        check_stages(stage_ious, stage_weights, smooth_l1_beta)
        self.stage_ious, self.stage_weights, self.smooth_l1_beta = stage_ious, stage_weights, smooth_l1_beta
        self.num_samples, self.max_detections = num_samples, max_detections
        self.pre_nms_top_k, self.post_nms_top_k = pre_nms_top_k, post_nms_top_k
        detect = partial(detect_in_regions, score_threshold=score_threshold, nms_threshold=nms_threshold)
        self.detect = partial(detect, weights=delta_weights(len(stage_ious) - 1), max_detections=max_detections)
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
        branch = partial(BoxBranch, source, num_classes, kind=box_head, hidden_dim=hidden_dim, boxes_per_class=False)
        self.stages = nn.ModuleList(branch() for _ in stage_ious)
        self.rpn_loss = RPNLoss()

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> CascadeRCNNOutput:
        """Propose, refine and detect; with ``targets``, sample before each stage and say what ``loss`` needs."""
        first = self.first_stage(features, padding_mask, training=targets is not None)
        if targets is not None:
            return CascadeRCNNOutput(first.rpn, self._trained(first, targets))
        regions, stages = first.proposals, [StageOutput(self.stages[0](first.maps, *first.proposals.as_rows()))]
        scores, deltas = stages[0].boxes.of_images(regions.scores.shape[0])
        for number, branch in enumerate(self.stages[1:]):
            regions = regions._replace(boxes=refined(deltas[:, :, 0], regions.boxes, first.content, number))
            stages.append(StageOutput(branch(first.maps, *regions.as_rows())))
            score, deltas = stages[-1].boxes.of_images(regions.scores.shape[0])
            scores = scores + score
        found = self.detect(scores / len(stages), deltas, regions, first.content)
        return CascadeRCNNOutput(first.rpn, stages, found)

    def _trained(self, first: FirstStage, targets: Sequence[Targets]) -> list[StageOutput]:
        """The stages on samples: of the proposals, then of what the samples before became."""
        proposals, stages = first.proposals, list[StageOutput]()
        content = first.content.expand(len(targets), -1)
        for number, (branch, least) in enumerate(zip(self.stages, self.stage_ious, strict=True)):
            regions = sample_regions(proposals, targets, positive_iou=least, num_samples=self.num_samples)
            said = branch(first.maps, regions.boxes, regions.images)
            stages.append(StageOutput(said, regions))
            boxes = refined(said.deltas[:, 0], regions.boxes, content[regions.images], number)
            proposals = regions_to_proposals(regions, boxes, len(targets))
        return stages

    def loss(
        self, output: CascadeRCNNOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``objectness`` and ``rpn_box`` of anchors, ``cross_entropy_1``, ``smooth_l1_1`` and so on of the stages.

        Args:
            output: made with the same targets.
            targets: one per image.
            totals: of the whole optimizer step; of these targets where None.

        Raises:
            ValueError: the output was made without targets.
        """
        totals = totals or LossTotals.of(targets)
        terms: dict[str, Tensor] = {}
        for number, ((said, regions), weight) in enumerate(zip(output.stages, self.stage_weights, strict=True)):
            own = region_losses(
                *said, sampled(regions), totals, weights=delta_weights(number), beta=self.smooth_l1_beta
            )
            terms |= {f"{name}_{number + 1}": weight * value for name, value in own.items()}
        return self.rpn_loss(output.rpn, targets, totals) | terms

    def postprocess(self, output: CascadeRCNNOutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """What was found, in pixels of the original images.

        Raises:
            ValueError: the output was made with targets, or the model has diverged.
        """
        said = (x for stage in output.stages for x in stage.boxes)
        check_finite((*output.rpn.logits, *output.rpn.deltas, *said))
        return in_original_pixels(within_images(detected(output.found), image_sizes), image_sizes)


def delta_weights(number: int) -> Weights:
    """What the deviations of stage ``number``, counted from 0, are multiplied by: boxes deviate less and less."""
    return 10.0 * (number + 1), 5.0 * (number + 1)


@torch.no_grad()
def refined(
    deltas: Float[Tensor, "*b 4"], boxes: Float[Tensor, "*b 4"], content: Float[Tensor, "_b 2"], number: int
) -> Float[Tensor, "*b 4"]:
    """Regions moved by what stage ``number`` says of them, cut to ``content``, their image's (height, width)."""
    return clip_to_sizes(decode_deltas(deltas, boxes, weights=delta_weights(number)), content)


def check_stages(ious: Sequence[float], weights: Sequence[float], beta: float) -> None:
    """There are stages, each with a weight, and numbers are in their ranges.

    Raises:
        ValueError: it is not so.
    """
    check_shares({f"stage_ious[{number}]": iou for number, iou in enumerate(ious)}, zero=False)
    if not ious or len(weights) != len(ious):
        raise ValueError(f"stage_weights has one number for each of stage_ious, not {len(weights)} for {len(ious)}")
    if min(*weights, beta) < 0:
        raise ValueError(f"stage_weights and smooth_l1_beta are at least 0, not {list(weights)} and {beta}")
