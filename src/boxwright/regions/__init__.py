"""Parts that two-stage heads share: proposals, RoI extraction, sampling, box and mask branches, decoding, options."""

from boxwright.regions.box_branch import AuxiliaryBoxHead, BoxBranch, BoxPrediction, auxiliary_losses, box_losses
from boxwright.regions.cascade import average_stages, stage_delta_weights
from boxwright.regions.decode import RegionPrediction, decode_regions, refine_boxes, select_detections
from boxwright.regions.mask_branch import MaskBranch, mask_loss, mask_targets
from boxwright.regions.options import (
    BoxBranchOptions,
    BoxOptions,
    DetectionOptions,
    MaskOptions,
    RoIOptions,
    RPNOptions,
)
from boxwright.regions.proposals import RPN, FirstStage, Proposals, RPNLoss, regions_to_proposals, select_proposals
from boxwright.regions.roi_extractor import RoIExtractor, RoISource, region_levels, region_strides
from boxwright.regions.sampling import SampledRegions, sample_balanced, sample_regions, select_positives
from boxwright.regions.two_stage import StageOutput, TwoStageHead, TwoStageOutput

__all__ = [
    "RPN",
    "AuxiliaryBoxHead",
    "BoxBranch",
    "BoxBranchOptions",
    "BoxOptions",
    "BoxPrediction",
    "DetectionOptions",
    "FirstStage",
    "MaskBranch",
    "MaskOptions",
    "Proposals",
    "RPNLoss",
    "RPNOptions",
    "RegionPrediction",
    "RoIExtractor",
    "RoIOptions",
    "RoISource",
    "SampledRegions",
    "StageOutput",
    "TwoStageHead",
    "TwoStageOutput",
    "auxiliary_losses",
    "average_stages",
    "box_losses",
    "decode_regions",
    "mask_loss",
    "mask_targets",
    "refine_boxes",
    "region_levels",
    "region_strides",
    "regions_to_proposals",
    "sample_balanced",
    "sample_regions",
    "select_detections",
    "select_positives",
    "select_proposals",
    "stage_delta_weights",
]
