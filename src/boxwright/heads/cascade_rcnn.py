"""Cascade R-CNN: Faster R-CNN with stages, each of which refines the boxes of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.option_checks import check_choice, check_fractions
from boxwright.regions.box_branch import BoxBranch, box_losses
from boxwright.regions.cascade import Average, StageStds, average_stages, stage_delta_weights
from boxwright.regions.decode import RegionPrediction, refine_boxes
from boxwright.regions.options import BoxBranchOptions, DetectionOptions, RoIOptions, RPNOptions
from boxwright.regions.proposals import Proposals, regions_to_proposals
from boxwright.regions.sampling import sample_regions
from boxwright.regions.two_stage import PredictedStage, StageOutput, TwoStageHead, TwoStageOutput
from boxwright.structures import Features, Spec, Targets

__all__ = ["CascadeRCNN"]


class CascadeRCNN(TwoStageHead):
    """Faster R-CNN with box branches in a row: each refines the boxes of the one before.

    Stage t is trained on the refined boxes of stage t - 1, with a higher IoU for its objects and larger weights of
    deltas; no gradient passes through boxes. A prediction has the last boxes and the mean scores of all stages.

    Args:
        in_spec: the levels that come in, fine to coarse; auxiliary ones are left out.
        num_classes: C.
        stage_ious: of each stage, the least IoU of a region with its object, in [0, 1].
        stage_weights: of each stage's losses.
        stage_stds: standard deviations of each stage's deltas, of centers and sizes; None for 1 / 10 t and 1 / 5 t.
        averages: of the stages' ``scores`` (detectron2) or ``logits`` (mmdetection).
        smooth_l1_beta: of the stages: distance from which smooth L1 is linear; 0 for L1 (detectron2).
        channels: width of the levels; where None, the width that they share, or else 256. Levels of another width are
            projected to it.
        rpn: region proposal network.
        roi: features of regions, and sampling for each stage.
        boxes: box branch of each stage.
        detection: limits of detections.

    Source: Cai and Vasconcelos, Cascade R-CNN, CVPR 2018, sections 4 and 5.1. Checked against mmdetection 3.3.0's
    CascadeRoIHead: losses of each stage on the same samples, refined boxes, logits, detections. Weights of deltas and
    stages and smooth L1 are those of the authors' code (zhaoweicai/Detectron-Cascade-RCNN, 5a297fc). Differs from it in
    scores: there all classifiers see the last stage's regions, which runs every box head again; each on its own
    regions, as in detectron2 and mmdetection, costs nothing more. Differs in sampling: every stage draws
    ``num_samples``, as in mmdetection, where theirs train on all that came through the first. Otherwise differs as
    Faster R-CNN does.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        stage_ious: Sequence[float] = (0.5, 0.6, 0.7),
        stage_weights: Sequence[float] = (1.0, 0.5, 0.25),
        stage_stds: StageStds | None = None,
        averages: Average = "scores",
        smooth_l1_beta: float = 1.0,
        channels: int | None = None,
        rpn: RPNOptions = RPNOptions(),
        roi: RoIOptions = RoIOptions(),
        boxes: BoxBranchOptions = BoxBranchOptions(),
        detection: DetectionOptions = DetectionOptions(),
    ) -> None:
        super().__init__(in_spec, num_classes, channels=channels, rpn=rpn, roi=roi, detection=detection)
        check_fractions({f"stage_ious[{stage}]": iou for stage, iou in enumerate(stage_ious)}, zero=False)
        if not stage_ious or len(stage_weights) != len(stage_ious):
            counts = f"{len(stage_weights)} for {len(stage_ious)}"
            raise ValueError(f"stage_weights has one number for each of stage_ious, not {counts}")
        if min(*stage_weights, smooth_l1_beta) < 0:
            numbers = f"{list(stage_weights)} and {smooth_l1_beta}"
            raise ValueError(f"stage_weights and smooth_l1_beta are at least 0, not {numbers}")
        check_choice("averages", averages, get_args(Average))
        self.stage_ious, self.stage_weights, self.smooth_l1_beta = stage_ious, stage_weights, smooth_l1_beta
        self.delta_weights, self.averages = stage_delta_weights(len(stage_ious), stage_stds), averages
        branches = (BoxBranch(self.roi_source, num_classes, boxes, boxes_per_class=False) for _ in stage_ious)
        self.stages = nn.ModuleList(branches)

    def train_regions(
        self, output: TwoStageOutput, proposals: Proposals, features: Features, targets: Sequence[Targets]
    ) -> TwoStageOutput:
        """Sample regions for each stage, after the first from the refined regions of the one before."""
        stages, limits = list[StageOutput](), output.box_limits.expand(len(targets), -1)
        for stage, (branch, iou) in enumerate(zip(self.stages, self.stage_ious, strict=True)):
            if stages:
                (boxes, regions), weights = stages[-1], self.delta_weights[stage - 1]
                refined = refine_boxes(boxes.deltas[:, 0], regions.boxes, limits[regions.images], weights)
                proposals = regions_to_proposals(regions, refined, len(targets))
            regions = sample_regions(
                proposals.boxes,
                proposals.valid,
                targets,
                positive_iou=iou,
                num_samples=self.roi.num_samples,
                stage=stage,
            )
            stages.append(StageOutput(branch(output.maps, regions.boxes, regions.images), regions))
        return output._replace(stages=stages)

    def predict_stages(self, output: TwoStageOutput, proposals: Proposals) -> list[PredictedStage]:
        """Run the stages in order, each on the refined boxes of the one before."""
        regions, count = proposals, proposals.scores.shape[0]
        stages = [PredictedStage(regions, self.stages[0](output.maps, *regions.as_rows()), self.delta_weights[0])]
        for branch, weights in zip(self.stages[1:], self.delta_weights[1:], strict=True):
            deltas = stages[-1].boxes.of_images(count)[1][:, :, 0]
            refined = refine_boxes(deltas, regions.boxes, output.box_limits, stages[-1].weights)
            regions = regions._replace(boxes=refined)
            stages.append(PredictedStage(regions, branch(output.maps, *regions.as_rows()), weights))
        return stages

    def combine_stages(self, stages: Sequence[PredictedStage]) -> RegionPrediction:
        """Take the boxes of the last stage, with the mean scores of all stages."""
        regions, boxes, weights = stages[-1]
        count = regions.scores.shape[0]
        scores = average_stages([stage.boxes for stage in stages], count, self.averages)
        return RegionPrediction(regions, scores, boxes.of_images(count)[1], weights)

    def box_branches(self) -> list[BoxBranch]:
        """List the box branches of the stages."""
        return [cast(BoxBranch, stage) for stage in self.stages]

    def region_losses(
        self, output: TwoStageOutput, targets: Sequence[Targets], images_per_process: float
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute ``cross_entropy_1``, ``smooth_l1_1`` and so on of the stages."""
        terms: dict[str, Tensor] = {}
        stages = zip(output.stages, self.delta_weights, self.stage_weights, strict=True)
        for stage, ((boxes, regions), weights, factor) in enumerate(stages, start=1):
            own = box_losses(boxes, regions, images_per_process, weights=weights, beta=self.smooth_l1_beta)
            terms |= {f"{name}_{stage}": factor * value for name, value in own.items()}
        return terms
