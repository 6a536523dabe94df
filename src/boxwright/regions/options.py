"""Options that two-stage heads have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from boxwright.layers.option_checks import check_choice, check_counts, check_fractions
from boxwright.ops.anchors import AnchorGrid
from boxwright.ops.box_deltas import SMOOTH_L1_BETA

RoIExtractorKind = Literal["fpn_level", "adaptive", "soft"]
LevelEpsilon = Literal["outside", "inside"]
Fusion = Literal["max", "sum"]
BoxHeadKind = Literal["two_linear", "four_conv"]
RegionBoxLoss = Literal["smooth_l1", "giou"]
MaskNorm = Literal["none", "batch"]


@dataclass(frozen=True, kw_only=True)
class RPNOptions:
    """Region proposal network, and the selection of its proposals.

    Args:
        num_convs: 3 x 3 convolutions; 2 in torchvision's V2.
        anchor_scale: side of a level's smallest square anchor, in strides: with stride 32 the coarsest, as of a dilated
            backbone's P6, there is no anchor of 512 pixels.
        octave_steps: sizes of anchors before the side has doubled.
        box_beta: difference of deltas from which smooth L1 is linear, at least 0, which is L1 (mmdetection).
        anchor_grid: pixels between anchors: the stride of the ``level``, or those of the ``padded_input`` divided by
            the level's cells, rounded down (torchvision).
        whole_pixels: sides and corners of anchors are whole pixels (torchvision), else fractions (mmdetection).
        pre_nms_top_k: anchors of a level before NMS, in training and in prediction.
        post_nms_top_k: proposals of an image after NMS, in training and in prediction.
        nms_threshold: IoU above which the worse of two proposals is dropped, in [0, 1].
    """

    num_convs: int = 1
    anchor_scale: float = 8.0
    octave_steps: int = 1
    box_beta: float = SMOOTH_L1_BETA
    anchor_grid: AnchorGrid = "level"
    whole_pixels: bool = True
    pre_nms_top_k: tuple[int, int] = (2000, 1000)
    post_nms_top_k: tuple[int, int] = (2000, 1000)
    nms_threshold: float = 0.7

    def __post_init__(self) -> None:
        check_counts({"num_convs": self.num_convs, "octave_steps": self.octave_steps})
        if not self.box_beta >= 0:
            raise ValueError(f"box_beta is at least 0, not {self.box_beta}")
        check_choice("anchor_grid", self.anchor_grid, get_args(AnchorGrid))
        check_counts({"pre_nms_top_k": min(self.pre_nms_top_k), "post_nms_top_k": min(self.post_nms_top_k)})
        check_fractions({"nms_threshold": self.nms_threshold})


@dataclass(frozen=True, kw_only=True)
class RoIOptions:
    """Regions of the second stage: the features that are extracted for them, and how many are sampled.

    Args:
        extractor: features from the level that fits a region (``fpn_level``), from all levels for layers that have one
            copy per level (``adaptive``, PANet), or from their sum with learned weights (``soft``, AugFPN).
        level_epsilon: of ``fpn_level``: where 1e-6 is added against rounding, ``outside`` of the logarithm
            (torchvision) or ``inside`` (Detectron).
        fusion: of ``adaptive`` features, after the first layer: the largest value, or the sum.
        sampling_ratio: samples per side of a cell of RoIAlign; 0 for one in each cell of the map (mmdetection).
        aligned: RoIAlign's samples are those of the region, not half a cell of the map beside it (mmdetection).
        coarsest_stride: coarser levels are for proposals alone, as P6; so are levels beyond a stride that two share,
            where a dilated backbone ends.
        num_samples: regions of an image that each box branch is trained on, at most.
    """

    extractor: RoIExtractorKind = "fpn_level"
    level_epsilon: LevelEpsilon = "outside"
    fusion: Fusion = "max"
    sampling_ratio: int = 2
    aligned: bool = False
    coarsest_stride: int = 32
    num_samples: int = 512

    def __post_init__(self) -> None:
        check_choice("extractor", self.extractor, get_args(RoIExtractorKind))
        check_choice("level_epsilon", self.level_epsilon, get_args(LevelEpsilon))
        check_choice("fusion", self.fusion, get_args(Fusion))
        check_counts({"sampling_ratio": self.sampling_ratio}, least=0)
        check_counts({"num_samples": self.num_samples})


@dataclass(frozen=True, kw_only=True)
class BoxBranchOptions:
    """Layers of a box branch.

    Args:
        head: ``two_linear``, or ``four_conv`` with batch norm (torchvision's V2).
        hidden_dim: width of the vector that classes and boxes are predicted from.
    """

    head: BoxHeadKind = "two_linear"
    hidden_dim: int = 1024

    def __post_init__(self) -> None:
        check_choice("head", self.head, get_args(BoxHeadKind))
        check_counts({"hidden_dim": self.hidden_dim})


@dataclass(frozen=True, kw_only=True)
class BoxOptions(BoxBranchOptions):
    """Box branch, and the auxiliary one that sees each region on every auxiliary level.

    Args:
        head: ``two_linear``, or ``four_conv`` with batch norm (torchvision's V2).
        hidden_dim: width of the vector that classes and boxes are predicted from.
        smooth_l1_beta: difference of deltas from which smooth L1 is linear, at least 0, which is L1: 1/9 in
            torchvision, 1/3 in PANet, 1 in Detectron and AugFPN, 0 in detectron2 and mmdetection.
        aux_weight: of the auxiliary losses, on each auxiliary level, as AugFPN's laterals; 0 for no auxiliary branch.
            That branch is used in training only, and its smooth L1 is linear from 1.
        box_loss: ``smooth_l1`` of the deltas, or ``giou`` of the boxes.
        box_weight: of it.
    """

    smooth_l1_beta: float = SMOOTH_L1_BETA
    aux_weight: float = 0.25
    box_loss: RegionBoxLoss = "smooth_l1"
    box_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("box_loss", self.box_loss, get_args(RegionBoxLoss))
        for name in ("smooth_l1_beta", "aux_weight", "box_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is at least 0, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Mask branch.

    Args:
        num_convs: 3 x 3 convolutions before the transposed one, at least 2.
        norm: of these convolutions: ``none``, or ``batch`` (torchvision's V2).
        hidden_dim: width of all convolutions.
        fully_connected: add a mask of all classes from linear layers to each mask (PANet).
        aux_weight: of the loss of an auxiliary branch of this kind, on each auxiliary level; 0 for none, 0.25 in
            AugFPN's Mask R-CNN. It is used in training only.
    """

    num_convs: int = 4
    norm: MaskNorm = "none"
    hidden_dim: int = 256
    fully_connected: bool = False
    aux_weight: float = 0.0

    def __post_init__(self) -> None:
        check_counts({"num_convs": self.num_convs}, least=2)
        check_choice("norm", self.norm, get_args(MaskNorm))
        check_counts({"hidden_dim": self.hidden_dim})
        if not self.aux_weight >= 0:
            raise ValueError(f"aux_weight is at least 0, not {self.aux_weight}")


@dataclass(frozen=True, kw_only=True)
class DetectionOptions:
    """Limits of detections.

    Args:
        score_threshold: detections have a higher score, in [0, 1].
        nms_threshold: IoU above which the worse of two detections of one class is dropped, in [0, 1].
        max_detections: most detections of an image.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        check_fractions({"score_threshold": self.score_threshold, "nms_threshold": self.nms_threshold})
        check_counts({"max_detections": self.max_detections})
