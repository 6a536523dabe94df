"""Mask R-CNN: proposed regions, looked at again, and masks of what they show."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.detections import Detections
from boxwright.layers.option_checks import check_counts, check_shares
from boxwright.ops.boxes import at_least_float32
from boxwright.ops.finite import check_finite
from boxwright.ops.mask_pasting import paste_masks
from boxwright.regions.assignment import (
    POSITIVE_SHARE,
    SampledRegions,
    repeated,
    sample_regions,
    sampled,
    select_positives,
)
from boxwright.regions.auxiliary_boxes import build_auxiliary_box_head
from boxwright.regions.box_branch import BoxBranch, BoxPrediction
from boxwright.regions.box_head import BoxHeadKind
from boxwright.regions.box_loss import consistent_losses, region_losses
from boxwright.regions.decode import Found, detect_in_regions, detected, in_original_pixels, within_images
from boxwright.regions.first_stage import RegionProposals
from boxwright.regions.levels import Epsilon
from boxwright.regions.mask_branch import MaskBranch, MaskNorm
from boxwright.regions.mask_loss import mask_loss
from boxwright.regions.roi_extractor import Fusion, RoIExtractorKind
from boxwright.regions.rpn import RPNOutput
from boxwright.regions.rpn_loss import RPNLoss
from boxwright.regions.sampling import max_positives
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets

__all__ = ["MaskRCNN"]


class MaskRCNNOutput(NamedTuple):
    """What is said of anchors and of regions.

    With targets, ``regions`` are the sampled ones with what is wanted, ``masks`` are logits of those of them that have
    an object, and ``raw`` is what is said of all of them on each auxiliary level. Without, ``found`` are the
    detections, and ``masks`` are theirs, image after image.
    """

    rpn: RPNOutput
    boxes: BoxPrediction
    masks: Float[Tensor, "r s s"]
    raw: Sequence[BoxPrediction] = ()
    regions: SampledRegions | None = None
    found: Found | None = None

    def prediction(self) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 4"]]:
        """Scores and corner boxes, in pixels of the network's input; what only fills up has the score 0."""
        found = detected(self.found)
        return found.scores * found.valid, found.boxes


class MaskRCNN(nn.Module):
    """Faster R-CNN with a branch that tells the mask of each region's class, 28 x 28 cells over its box.

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
        mask_convs: 3 x 3 convolutions of the mask branch.
        mask_norm: of these: ``none``, or ``batch`` (torchvision's V2).
        mask_dim: width of the mask branch.
        fully_connected_masks: a mask of all classes from linear layers is added to each (PANet).
        score_threshold: detections that do not exceed it are left out, in [0, 1].
        nms_threshold: IoU above which the worse of two of one class is left out, in [0, 1].
        max_detections: most detections of an image.

    Source: He et al., Mask R-CNN, ICCV 2017; Liu et al., PANet, CVPR 2018, sections 3.2 and 3.3 (``adaptive``,
    ``fully_connected_masks``). Checked against torchvision 0.29.2's maskrcnn_resnet50_fpn and _v2: detections, masks,
    losses on the same regions, gradients. Differs in losses that are averages over images, where torchvision averages
    over the sampled anchors and regions of a batch; where a canvas without padding ends within a cell of the finest
    level: boxes are cut there at the end of the cell, up to stride - 1 pixels beyond the canvas, where torchvision cuts
    them at the canvas; in suppression, which at most 20 ``max_detections`` (region, class) pairs of an image enter,
    the best, where torchvision has no bound; and in first weights of the box branch's last layers, from normal
    distributions of 0.01 for classes and 0.001 for boxes as in Detectron, where torchvision has those of ``nn.Linear``.
    """

    needs_masks = True
    count_as_published = False
    """Whether costs are counted, which papers do of boxes alone: how many masks there are, the image decides."""

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
        mask_convs: int = 4,
        mask_norm: MaskNorm = "none",
        mask_dim: int = 256,
        fully_connected_masks: bool = False,
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
        self.masks = MaskBranch(
            source,
            num_classes,
            num_convs=mask_convs,
            norm=mask_norm,
            hidden_dim=mask_dim,
            fully_connected=fully_connected_masks,
        )
        self.raw = build_auxiliary_box_head(in_spec, num_classes, hidden_dim=hidden_dim, weight=consistent_weight)
        self.rpn_loss = RPNLoss()

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> MaskRCNNOutput:
        """Propose and detect; with ``targets``, propose, sample and say what ``loss`` needs."""
        maps, rpn, content, proposals = self.first_stage(features, padding_mask, training=targets is not None)
        if targets is not None:
            regions = sample_regions(proposals, targets, num_samples=self.num_samples)
            raw = self.raw(features, regions.boxes, regions.images) if self.raw is not None else ()
            shown = select_positives(regions)
            masks = self.masks(maps, shown.boxes, shown.images, shown.labels)
            return MaskRCNNOutput(rpn, self.boxes(maps, regions.boxes, regions.images), masks, raw, regions)
        boxes = self.boxes(maps, *proposals.as_rows())
        scores, deltas = boxes.of_images(proposals.scores.shape[0])
        found = self.detect(scores, deltas, proposals, content)
        return MaskRCNNOutput(rpn, boxes, self._masks(maps, found), found=found)

    def _masks(self, maps: Sequence[Float[Tensor, "b c _h _w"]], found: Found) -> Float[Tensor, "r s s"]:
        """Logits of what was found, 0 for what only fills up; an export looks at that too, so that shapes are fixed."""
        boxes, images = found.as_rows()
        labels = found.labels.flatten()
        if torch.compiler.is_compiling():
            of_all: Tensor = self.masks(maps, boxes, images, labels)
            return of_all * found.valid.flatten()[:, None, None]
        (places,) = torch.where(found.valid.flatten() & (not self.count_as_published))
        masks: Tensor = self.masks(maps, boxes[places], images[places], labels[places])
        return masks.new_zeros(len(boxes), *masks.shape[1:]).index_copy(0, places, masks)

    def loss(
        self, output: MaskRCNNOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``objectness`` and ``rpn_box`` of anchors, ``cross_entropy``, ``smooth_l1`` and ``mask`` of regions.

        With auxiliary levels also ``raw_cross_entropy`` and ``raw_smooth_l1``, sums over these levels.

        Args:
            output: made with the same targets.
            targets: one per image, with masks.
            totals: of the whole optimizer step; of these targets where None.

        Raises:
            ValueError: the output was made without targets, or an image with objects has no masks.
        """
        regions, totals = sampled(output.regions), totals or LossTotals.of(targets)
        terms = self.rpn_loss(output.rpn, targets, totals)
        terms |= region_losses(*output.boxes, regions, totals)
        terms["mask"] = mask_loss(output.masks, select_positives(regions), targets, totals)
        return terms | consistent_losses(output.raw, regions, totals, weight=self.consistent_weight)

    def worst_case_targets(self, targets: Sequence[Targets]) -> list[Targets]:
        """The same objects over and over: as many regions get a mask as when every proposal fits an object."""
        return [repeated(target, max_positives(self.num_samples, POSITIVE_SHARE)) for target in targets]

    def postprocess(self, output: MaskRCNNOutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """What was found, in pixels of the original images, with masks.

        Raises:
            ValueError: the output was made with targets, or the model has diverged.
        """
        check_finite((*output.rpn.logits, *output.rpn.deltas, *output.boxes, output.masks))
        found = within_images(detected(output.found), image_sizes)
        masks = output.masks.unflatten(0, found.scores.shape)
        detections = in_original_pixels(found, image_sizes)
        for i, (boxes, own, valid, size) in enumerate(zip(found.boxes, masks, found.valid, image_sizes, strict=True)):
            # A mask is of all of its box, also of what reaches beyond the image.
            scale = boxes.new_tensor([size.width / size.input_width, size.height / size.input_height]).repeat(2)
            probabilities = at_least_float32(own[valid]).sigmoid()
            pasted = paste_masks(probabilities, boxes[valid] * scale, (size.height, size.width))
            detections[i] = detections[i]._replace(masks=pasted)
        return detections
