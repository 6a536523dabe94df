"""Faster R-CNN: region proposals, classified and refined."""

from __future__ import annotations

from boxwright.regions.box_branch import BoxBranch, build_auxiliary_box_head
from boxwright.regions.options import BoxOptions, DetectionOptions, RoIOptions, RPNOptions
from boxwright.regions.two_stage import TwoStageHead
from boxwright.structures import Spec

__all__ = ["FasterRCNN"]


class FasterRCNN(TwoStageHead):
    """Region proposal network, RoIAlign, and a branch that predicts the classes and boxes of the regions.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the levels; where None, the width that they share, or else 256. Levels of another width are
            projected to it.
        rpn: region proposal network.
        roi: features and sampling of regions.
        boxes: box branch, and the auxiliary one of AugFPN's consistent supervision.
        detection: limits of detections.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, with Lin et al., Feature Pyramid Networks, CVPR 2017, section 4.2.
    Checked against torchvision 0.29.2's fasterrcnn_resnet50_fpn and _v2: proposals, detections, losses on the same
    regions, gradients. Differs in losses that are averages over images, where torchvision averages over the sampled
    anchors and regions of a batch; where an input without padding ends within a cell of the finest level: boxes are
    cut at the end of that cell, up to stride - 1 pixels beyond the input, where torchvision cuts them at the input; in
    NMS, which at most 20 ``max_detections`` (region, class) pairs of an
    image enter, the best, where torchvision has no bound; and in initial weights of the branch's last layers, from
    normal distributions of 0.01 for classes and 0.001 for boxes as in Detectron, where torchvision has those of
    ``nn.Linear``. Of two objects with one box and two classes the second gets no region, as in torchvision; in
    mmdetection and Detectron it gets the box itself.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        rpn: RPNOptions = RPNOptions(),
        roi: RoIOptions = RoIOptions(),
        boxes: BoxOptions = BoxOptions(),
        detection: DetectionOptions = DetectionOptions(),
    ) -> None:
        super().__init__(in_spec, num_classes, channels=channels, rpn=rpn, roi=roi, detection=detection)
        self.boxes = BoxBranch(self.roi_source, num_classes, boxes)
        self.aux_boxes = build_auxiliary_box_head(in_spec, num_classes, boxes)
        self.aux_weight, self.smooth_l1_beta = boxes.aux_weight, boxes.smooth_l1_beta
        self.box_loss, self.box_weight = boxes.box_loss, boxes.box_weight
