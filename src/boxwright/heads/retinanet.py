"""RetinaNet's head: a class and a box for each of nine anchors at every cell, trained with the focal loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.dense.atss_matching import match_adaptively
from boxwright.dense.head import DenseHead, DenseMaps, Maps
from boxwright.dense.options import AnchorOptions, DenseDetectionOptions, FocalOptions
from boxwright.dense.output import DenseOutput
from boxwright.dense.towers import ConvTower, TowerNorm
from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.layers.predictions import prediction_conv, run_in_full_precision
from boxwright.losses.focal import summed_focal_loss_of_levels
from boxwright.ops.box_deltas import encode_deltas
from boxwright.ops.box_matching import IGNORED, gather_matches, match_by_iou
from boxwright.ops.boxes import at_least_float32, generalized_iou
from boxwright.structures import AnchorFits, LossTotals, Spec, Targets

__all__ = ["RetinaNet"]

BoxLoss = Literal["l1", "giou"]

_ANCHORS, _FOCAL, _DETECTION = AnchorOptions(), FocalOptions(), DenseDetectionOptions()


class RetinaNet(DenseHead):
    """Two towers of convolutions, shared by all levels, that predict classes and boxes of the anchors at each cell.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the towers; where None, that of the levels if they share one, else 256. Levels of another
            width are projected to it.
        num_convs: of each tower.
        norm: of the towers: ``none``, ``group`` (torchvision's V2), or ``batch``, of each level's own (mmdetection's
            RetinaSepBNHead).
        anchors: sizes and shapes of the anchors of a cell.
        box_loss: ``l1`` of the deltas, or ``giou`` of the boxes (torchvision's V2).
        positive_iou: least IoU of an anchor with the object that it is trained on.
        negative_iou: IoU below which an anchor is background.
        atss_top_k: anchors are matched as in ATSS, and so many on each level are candidates of an object (9 in the
            paper, with one anchor at every cell); by these two limits of the IoU where None.
        focal: constants of the class loss.
        detection: thresholds and limits of detections.

    Source: Lin et al., RetinaNet, ICCV 2017, sections 3 and 4. Checked against torchvision 0.29.2, V1 and V2: same
    weights, same outputs, detections, losses and gradients. Torchvision's and not the paper's are L1 where the paper
    has smooth L1, and anchors that are matched with an object although they fit it badly, where none fits it better;
    torchvision's alone are anchors of whole pixels, where detectron2 and mmdetection keep the fractions. Differs in
    taking any number of levels of any stride, and in the pixels between the anchors of coarse levels, which are
    torchvision's with ``anchors.anchor_grid=padded_input``.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        num_convs: int = 4,
        norm: TowerNorm = "none",
        anchors: AnchorOptions = _ANCHORS,
        box_loss: BoxLoss = "l1",
        positive_iou: float = 0.5,
        negative_iou: float = 0.4,
        atss_top_k: int | None = None,
        focal: FocalOptions = _FOCAL,
        detection: DenseDetectionOptions = _DETECTION,
    ) -> None:
        if not 0 <= negative_iou <= positive_iou <= 1:
            raise ValueError(
                f"0 <= negative_iou <= positive_iou <= 1 does not hold for {negative_iou} and {positive_iou}"
            )
        check_choice("box_loss", box_loss, get_args(BoxLoss))
        check_counts({"atss_top_k": 1 if atss_top_k is None else atss_top_k})

        super().__init__(
            in_spec,
            num_classes,
            channels=channels,
            make_anchors=anchors.make_anchors,
            detection=detection,
            anchor_grid=anchors.anchor_grid,
        )
        self.box_loss, self.focal = box_loss, focal
        self.positive_iou, self.negative_iou, self.atss_top_k = positive_iou, negative_iou, atss_top_k
        num_anchors, width = self.base_anchors.shape[1], self.input_projection.channels
        levels = self.input_projection.levels
        self.class_tower = ConvTower(width, num_convs, norm=norm, levels=levels)
        self.box_tower = ConvTower(width, num_convs, norm=norm, levels=levels)
        # Every class starts at probability 0.01: else the many background anchors would drown the start.
        self.classes = prediction_conv(width, num_anchors * num_classes, value=-math.log(99))
        self.boxes = prediction_conv(width, num_anchors * 4)

    def predict(self, maps: Maps) -> DenseMaps:
        """Apply the towers to levels of one width."""
        logits = conv_over_levels(self.classes, self.class_tower.over_levels(maps))
        return DenseMaps(logits, [run_in_full_precision(self.boxes, x) for x in self.box_tower.over_levels(maps)])

    def match(self, anchors: Sequence[Float[Tensor, "_n 4"]], boxes: Float[Tensor, "n 4"]) -> Int[Tensor, " a"]:
        """Match the anchors of all levels with objects by their IoU."""
        if self.atss_top_k is not None:
            return match_adaptively(anchors, boxes, top_k=self.atss_top_k)
        return match_by_iou(
            torch.cat(tuple(anchors)),
            boxes,
            positive=self.positive_iou,
            negative=self.negative_iou,
            low_quality="ties",
        )

    def anchor_fits(self, boxes: Float[Tensor, "n 4"], input_size: tuple[int, int]) -> AnchorFits | None:
        """Compare boxes in pixels of a padded network input of this (height, width) with all anchors."""
        if self.atss_top_k is not None:
            return None
        return self.fits_by_iou(boxes, input_size, positive=self.positive_iou, negative=self.negative_iou)

    def loss(
        self, output: DenseOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``focal`` over all anchors that are not ignored, and ``l1`` or ``giou`` over the matched ones.

        Both are sums divided by the matched anchors of an image, at least one, and averages over images.

        Args:
            output: of ``forward``.
            targets: one per image.
            totals: of the whole optimizer step; of these targets where None.
        """
        totals = totals or LossTotals.of(targets)
        anchors = torch.cat(output.anchors)
        matched = self.match_targets(output.anchors, targets)
        image, anchor, boxes, labels = gather_matches(matched, targets)
        weights = 1 / (totals.images_per_process * (matched >= 0).sum(1).clamp(min=1).to(anchors.dtype))
        with torch.autocast(image.device.type, enabled=False):
            counted = weights[:, None] * (matched != IGNORED)
            focal = summed_focal_loss_of_levels(
                output.logits, labels, counted, alpha=self.focal.alpha, gamma=self.focal.gamma
            )
            deltas = at_least_float32(torch.cat(output.offsets, 1)[image, anchor])
            box = (weights[image] * self._box_losses(deltas, anchors[anchor], boxes.to(anchors.dtype))).sum()
        return {"focal": focal, self.box_loss: box}

    def _box_losses(
        self, deltas: Float[Tensor, "n 4"], anchors: Float[Tensor, "n 4"], boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, " n"]:
        if self.box_loss == "l1":
            return (deltas - encode_deltas(boxes, anchors)).abs().sum(-1)
        return 1 - generalized_iou(self.decode_boxes(deltas, anchors), boxes)
