"""Base of the two-stage heads: first stage, sampling, box branch, losses and decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.layers.level_cells import LevelCells
from boxwright.layers.option_checks import check_counts
from boxwright.mechanism import RegionStage, TwoStageMechanism
from boxwright.ops.anchors import best_anchor_ious
from boxwright.ops.box_deltas import FAST_RCNN_WEIGHTS, SMOOTH_L1_BETA, Weights
from boxwright.ops.box_matching import IGNORED
from boxwright.ops.boxes import area, at_least_float32
from boxwright.ops.finite import nan_like_any
from boxwright.recorded import Recorded
from boxwright.regions.box_branch import AuxiliaryBoxHead, BoxBranch, BoxPrediction, auxiliary_losses, box_losses
from boxwright.regions.decode import RegionPrediction, decode_regions
from boxwright.regions.explanation import ProposalOrigins, RankedPairs
from boxwright.regions.mask_branch import MaskBranch
from boxwright.regions.options import DetectionOptions, RegionBoxLoss, RoIOptions, RPNOptions
from boxwright.regions.proposals import FirstStage, Proposals, RPNLoss, RPNOutput
from boxwright.regions.roi_extractor import RoISource, region_strides
from boxwright.regions.sampling import SampledRegions, sample_regions
from boxwright.structures import (
    AnchorFits,
    Candidates,
    ClassRows,
    Decoded,
    Features,
    LossTotals,
    ObjectLimit,
    Spec,
    Targets,
)


class StageOutput(NamedTuple):
    """Predictions of a box branch, and the sampled regions that they are of."""

    boxes: BoxPrediction
    regions: SampledRegions


class TwoStageOutput(NamedTuple):
    """Output of a two-stage head.

    ``maps`` are the levels that features of regions are extracted from. ``box_limits`` are (height, width) that boxes
    of each image, or of all, are cut to, and ``valid_sizes`` those of the images inside their padding. With targets
    there is more: ``stages`` of each box branch, ``aux_boxes``, predictions of the same regions on each auxiliary
    level, and ``masks``, logits of those regions that have an object, with ``aux_masks``, the same on auxiliary levels.
    """

    maps: Sequence[Float[Tensor, "b c _h _w"]]
    rpn: RPNOutput
    box_limits: Float[Tensor, "#b 2"]
    valid_sizes: Float[Tensor, "#b 2"]
    stages: Sequence[StageOutput] = ()
    aux_boxes: Sequence[BoxPrediction] = ()
    masks: Float[Tensor, "r s s"] | None = None
    aux_masks: Sequence[Float[Tensor, "r s s"]] = ()


class PredictedStage(NamedTuple):
    """Predictions of a box branch of the regions of each image, and the weights of its deltas."""

    regions: Proposals
    boxes: BoxPrediction
    weights: Weights = FAST_RCNN_WEIGHTS


class TwoStageHead(nn.Module):
    """Region proposal network, and one box branch that classifies and refines its proposals.

    A head sets ``boxes`` and ``aux_boxes``, or replaces ``train_regions``, ``predict_stages``, ``combine_stages``,
    ``box_branches`` and ``region_losses``.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the levels; where None, the width that they share, or else 256. Levels of another width are
            projected to it.
        rpn: region proposal network.
        roi: features and sampling of regions.
        detection: limits of detections.
    """

    boxes: BoxBranch
    aux_boxes: AuxiliaryBoxHead | None
    aux_weight = 0.0
    smooth_l1_beta = SMOOTH_L1_BETA
    box_loss: RegionBoxLoss = "smooth_l1"
    box_weight = 1.0

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None,
        rpn: RPNOptions,
        roi: RoIOptions,
        detection: DetectionOptions,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes})
        self.roi, self.detection = roi, detection
        self.first_stage = FirstStage(in_spec, channels, rpn)
        strides = region_strides(self.first_stage.rpn.strides, roi.coarsest_stride)
        self.roi_source = RoISource(self.first_stage.input_projection.channels, strides, roi)
        self.rpn_loss = RPNLoss(beta=rpn.box_beta)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> TwoStageOutput:
        """Predict at every anchor; with ``targets``, propose and sample regions, and predict what ``loss`` needs."""
        maps, rpn, limits = self.first_stage(features, padding_mask)
        sizes = limits if valid_sizes is None else valid_sizes
        output = TwoStageOutput(maps[: len(self.roi_source.strides)], rpn, limits, sizes)
        if targets is None:
            return output
        return self.train_regions(output, self.first_stage.propose(rpn, limits, training=True), features, targets)

    def train_regions(
        self, output: TwoStageOutput, proposals: Proposals, features: Features, targets: Sequence[Targets]
    ) -> TwoStageOutput:
        """Sample regions and predict what the losses of the second stage need."""
        regions = sample_regions(proposals.boxes, proposals.valid, targets, num_samples=self.roi.num_samples)
        return self.predict_samples(output, regions, features)

    def predict_samples(self, output: TwoStageOutput, regions: SampledRegions, features: Features) -> TwoStageOutput:
        """Predict classes and boxes of sampled regions, on auxiliary levels too."""
        aux_boxes = self.aux_boxes(features, regions.boxes, regions.images) if self.aux_boxes is not None else ()
        stage = StageOutput(self.boxes(output.maps, regions.boxes, regions.images), regions)
        return output._replace(stages=(stage,), aux_boxes=aux_boxes)

    def predict_stages(self, output: TwoStageOutput, proposals: Proposals) -> list[PredictedStage]:
        """Run the box branches on proposals, in order."""
        return [PredictedStage(proposals, self.boxes(output.maps, *proposals.as_rows()))]

    def combine_stages(self, stages: Sequence[PredictedStage]) -> RegionPrediction:
        """Combine the predictions of the box branches to scores and boxes of regions."""
        ((regions, boxes, weights),) = stages
        return RegionPrediction(regions, *boxes.of_images(regions.scores.shape[0]), weights)

    def predict_regions(self, output: TwoStageOutput, proposals: Proposals) -> RegionPrediction:
        """Predict scores and boxes of proposals."""
        return self.combine_stages(self.predict_stages(output, proposals))

    def loss(
        self, output: TwoStageOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute ``objectness`` and ``rpn_box`` of anchors, and the losses of regions, see ``region_losses``.

        Args:
            output: made with the same targets.
            targets: one per image.
            totals: of the whole optimizer step; of these targets where None.

        Raises:
            ValueError: the output was made without targets.
        """
        if not output.stages:
            raise ValueError("the loss needs an output that was made with the targets")
        images = float(len(targets)) if totals is None else totals.images_per_process
        return self.rpn_loss(output.rpn, targets, images) | self.region_losses(output, targets, images)

    def region_losses(
        self, output: TwoStageOutput, targets: Sequence[Targets], images_per_process: float
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute ``cross_entropy`` and ``smooth_l1`` of regions, or ``giou``.

        With auxiliary levels also ``aux_cross_entropy`` and ``aux_smooth_l1``, sums over these levels.
        """
        ((boxes, regions),) = output.stages
        terms = box_losses(boxes, regions, images_per_process, beta=self.smooth_l1_beta, box_loss=self.box_loss)
        terms[self.box_loss] = self.box_weight * terms[self.box_loss]
        if output.aux_boxes:
            terms |= auxiliary_losses(output.aux_boxes, regions, images_per_process, weight=self.aux_weight)
        return terms

    @property
    def candidate_channels(self) -> int:
        """Width of the levels that features of regions are extracted from."""
        return self.roi_source.channels

    def list_candidates(self, output: TwoStageOutput, targets: Sequence[Targets]) -> Candidates:
        """List the regions that the first box branch is trained on; images with fewer are filled up."""
        del targets
        regions = output.stages[0].regions
        counts = regions.images.bincount(minlength=len(output.maps[0])).tolist()
        boxes = nn.utils.rnn.pad_sequence(list(regions.boxes.split(counts)), batch_first=True)
        objects = list(regions.objects.split(counts))
        return Candidates(boxes, nn.utils.rnn.pad_sequence(objects, batch_first=True, padding_value=IGNORED))

    def candidate_features(
        self, output: TwoStageOutput, features: Features, indices: Int[Tensor, "b q"]
    ) -> Float[Tensor, "b q c"]:
        """Extract the features of regions for the first box branch: the mean of their cells."""
        del features
        boxes = self.list_candidates(output, ()).boxes.gather(1, indices[..., None].expand(-1, -1, 4))
        images = torch.arange(len(indices), device=indices.device).repeat_interleave(indices.shape[1])
        maps = self.box_branches()[0].pooling(output.maps, boxes.flatten(0, 1), images)
        vectors: Tensor = torch.stack(maps).mean((0, -2, -1)).unflatten(0, indices.shape)
        return vectors

    def decode(self, output: TwoStageOutput) -> Decoded:
        """Propose regions, predict their classes and boxes, and select the best detections."""
        proposals = self.first_stage.propose(output.rpn, output.box_limits, training=False)
        with self.precision_of(output):
            predicted = self.predict_regions(output, proposals)
        decoded = decode_regions(predicted, output.box_limits, output.valid_sizes, self.detection)
        parts = (*output.rpn.logits, *output.rpn.deltas, predicted.scores, predicted.deltas, predicted.regions.boxes)
        return decoded._replace(scores=decoded.scores + nan_like_any(*parts)[:, None])

    def box_branches(self) -> Sequence[BoxBranch]:
        """List the box branches, in order."""
        return [self.boxes]

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain`` needs."""
        return [self.first_stage.input_projection]

    @torch.no_grad()
    def explain(self, output: TwoStageOutput, recorded: Recorded, detection: int) -> TwoStageMechanism:
        """Explain a detection by its proposal, the box branches, and what NMS removed in its favor."""
        origins = ProposalOrigins(output.rpn, output.box_limits, self.first_stage.options)
        with self.precision_of(output):
            stages = self.predict_stages(output, origins.proposals)
            predicted = self.combine_stages(stages)
        pairs = RankedPairs(predicted, output.box_limits, self.detection)
        region, label = pairs.region_and_label(detection)
        box = pairs.box(detection)
        return TwoStageMechanism(
            box=box,
            label=label,
            score=pairs.score(detection),
            proposal=origins.explain(region, LevelCells.of(self.first_stage.input_projection, recorded)),
            stages=tuple(self._explain_stages(output, stages, region, box)),
            rank=pairs.rank(detection),
            neighbors=pairs.neighbors(detection),
        )

    def _explain_stages(
        self, output: TwoStageOutput, stages: Sequence[PredictedStage], region: int, box: Float[Tensor, " 4"]
    ) -> Iterator[RegionStage]:
        """Explain the region in each box branch; what the next one sees, or the detection, is the box of one."""
        boxes = [*(stage.regions.boxes[0, region].float().cpu() for stage in stages[1:]), box]
        names = self.first_stage.input_projection.levels
        for (regions, predicted, _), after, branch in zip(stages, boxes, self.box_branches(), strict=True):
            before = regions.boxes[0, region]
            with self.precision_of(output):
                weights = branch.level_weights(output.maps, before[None], torch.zeros_like(before[:1]).long())[0]
            scores = predicted.of_images(1)[0][0, region].float().cpu()
            named = {name: float(weight) for name, weight in zip(names, weights.tolist(), strict=False)}
            yield RegionStage(before.float().cpu(), after, scores, named)

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layers with a logit, a box or a mask for each class and, last, for background."""
        rows: dict[str, ClassRows] = {}
        for path, module in self.named_modules():
            if isinstance(module, BoxBranch | MaskBranch):
                rows |= {f"{path}.{name}": form for name, form in module.class_rows().items()}
        return rows

    def precision_of(self, output: TwoStageOutput) -> torch.autocast:
        """Autocast as the output was made, for the second stage of a prediction."""
        logits, weights = output.rpn.logits[0], self.first_stage.rpn.logits.weight
        half = torch.float16 if logits.dtype == torch.float16 else torch.bfloat16
        return torch.autocast(logits.device.type, half, enabled=logits.dtype != weights.dtype)

    def object_limits(self) -> Sequence[ObjectLimit]:
        """List the options that limit how many objects are detected."""
        rpn = self.first_stage.options
        return (
            ObjectLimit("rpn.pre_nms_top_k", rpn.pre_nms_top_k[1], per_level=True),
            ObjectLimit("rpn.post_nms_top_k", rpn.post_nms_top_k[1]),
            ObjectLimit("detection.max_detections", self.detection.max_detections),
        )

    def anchor_fits(self, boxes: Float[Tensor, "n 4"], input_size: tuple[int, int]) -> AnchorFits:
        """Compare boxes in pixels of a padded network input of this (height, width) with all anchors of the RPN."""
        rpn, loss = self.first_stage.rpn, self.rpn_loss
        bases = at_least_float32(rpn.base_anchors)
        best = best_anchor_ious(bases, rpn.strides, rpn.anchor_grid, boxes, input_size)
        return AnchorFits(best, loss.positive_iou, loss.negative_iou, float(area(bases).max()) ** 0.5)

    def raise_limits(self, max_detections: int) -> None:
        """Make room for so many detections of an image, in proposals too."""
        rpn = self.first_stage.options
        (train_pre, pre_nms), (train_post, post_nms) = rpn.pre_nms_top_k, rpn.post_nms_top_k
        self.first_stage.options = replace(
            rpn,
            pre_nms_top_k=(train_pre, max(max_detections, pre_nms)),
            post_nms_top_k=(train_post, max(max_detections, post_nms)),
        )
        self.detection = replace(self.detection, max_detections=max_detections)
