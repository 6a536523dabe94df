"""Mask R-CNN: Faster R-CNN and a mask branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, boxes_as_rows
from boxwright.ops.finite import nan_like_any
from boxwright.regions.box_branch import BoxBranch, build_auxiliary_box_head
from boxwright.regions.mask_branch import MaskBranch, build_auxiliary_mask_head, mask_loss, mask_targets
from boxwright.regions.options import BoxOptions, DetectionOptions, MaskOptions, RoIOptions, RPNOptions
from boxwright.regions.sampling import (
    POSITIVE_FRACTION,
    SampledRegions,
    max_positives,
    repeat_objects,
    select_positives,
)
from boxwright.regions.two_stage import TwoStageHead, TwoStageOutput
from boxwright.structures import Decoded, Features, MaskRegion, Spec, Targets

__all__ = ["MaskRCNN"]


class MaskRCNN(TwoStageHead):
    """Faster R-CNN with a branch that predicts the mask of each region's class, 28 x 28 cells over its box.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the levels; where None, the width that they share, or else 256. Levels of another width are
            projected to it.
        rpn: region proposal network.
        roi: features and sampling of regions.
        boxes: box branch, and the auxiliary one of AugFPN's consistent supervision.
        mask: mask branch, and the auxiliary one of AugFPN's consistent supervision.
        detection: limits of detections.

    Source: He et al., Mask R-CNN, ICCV 2017; Liu et al., PANet, CVPR 2018, sections 3.2 and 3.3 (``adaptive``,
    ``fully_connected``). Checked against torchvision 0.29.2's maskrcnn_resnet50_fpn and _v2: detections, masks,
    losses on the same regions, gradients. Differs as Faster R-CNN does.
    """

    mask_region: MaskRegion | None = "box"
    count_as_published = False
    """True while costs are counted, which papers do of boxes alone: the number of masks depends on the image."""

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        rpn: RPNOptions = RPNOptions(),
        roi: RoIOptions = RoIOptions(),
        boxes: BoxOptions = BoxOptions(),
        mask: MaskOptions = MaskOptions(),
        detection: DetectionOptions = DetectionOptions(),
    ) -> None:
        super().__init__(in_spec, num_classes, channels=channels, rpn=rpn, roi=roi, detection=detection)
        self.boxes = BoxBranch(self.roi_source, num_classes, boxes)
        self.masks = MaskBranch(self.roi_source, num_classes, mask)
        self.aux_boxes = build_auxiliary_box_head(in_spec, num_classes, boxes)
        self.aux_masks = build_auxiliary_mask_head(in_spec, num_classes, mask)
        self.aux_weight, self.smooth_l1_beta = boxes.aux_weight, boxes.smooth_l1_beta
        self.box_loss, self.box_weight = boxes.box_loss, boxes.box_weight
        self.aux_mask_weight = mask.aux_weight

    def predict_samples(self, output: TwoStageOutput, regions: SampledRegions, features: Features) -> TwoStageOutput:
        """Predict classes and boxes of sampled regions, and masks of those that have an object."""
        positive = select_positives(regions)
        rows = positive.boxes, positive.images, positive.labels
        masks = self.masks(output.maps, *rows)
        aux_masks = () if self.aux_masks is None else self.aux_masks(features, *rows)
        return super().predict_samples(output, regions, features)._replace(masks=masks, aux_masks=aux_masks)

    def region_losses(
        self, output: TwoStageOutput, targets: Sequence[Targets], images_per_process: float
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute ``mask`` beside the losses of Faster R-CNN; ``targets`` need masks wherever there are objects.

        With an auxiliary mask branch also ``aux_mask``, the sum over its levels.
        """
        ((_, regions),) = output.stages
        assert output.masks is not None
        positive = select_positives(regions)
        covered = mask_targets(positive, targets, output.masks.shape[-1])
        terms = {"mask": mask_loss(output.masks, covered, positive.images, images_per_process)}
        if output.aux_masks:
            each = [mask_loss(masks, covered, positive.images, images_per_process) for masks in output.aux_masks]
            terms["aux_mask"] = self.aux_mask_weight * torch.stack(each).sum()
        return super().region_losses(output, targets, images_per_process) | terms

    def decode(self, output: TwoStageOutput) -> Decoded:
        """Select the best detections, and predict their masks."""
        decoded = super().decode(output)
        boxes, images = boxes_as_rows(decoded.boxes)
        labels, valid = decoded.labels.flatten(), decoded.valid.flatten()
        with self.precision_of(output):
            if torch.compiler.is_compiling():
                # Also what fills up has a mask, so that shapes are fixed.
                logits = self.masks(output.maps, boxes, images, labels)
            else:
                (indices,) = torch.where(valid & (not self.count_as_published))
                own = self.masks(output.maps, boxes[indices], images[indices], labels[indices])
                logits = own.new_zeros(len(boxes), *own.shape[1:]).index_copy(0, indices, own)
        masks = (at_least_float32(logits).sigmoid() * valid[:, None, None]).unflatten(0, decoded.valid.shape)
        scores = decoded.scores + nan_like_any(masks)[:, None]
        return decoded._replace(scores=scores, masks=masks, mask_boxes=decoded.boxes)

    def worst_case_targets(self, targets: Sequence[Targets]) -> list[Targets]:
        """Repeat the objects until as many regions get a mask as when every proposal fits an object."""
        return [repeat_objects(target, max_positives(self.roi.num_samples, POSITIVE_FRACTION)) for target in targets]
