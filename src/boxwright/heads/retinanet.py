"""RetinaNet's head: a class and a box for each of nine anchors at every cell, trained with the focal loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.dense.decode import dense_detections, hard_nms
from boxwright.dense.towers import AnchorOutput, ConvTower, TowerNorm
from boxwright.detections import Detections
from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_choice, check_counts, check_shares
from boxwright.layers.predictions import InputProjection, flatten_predictions, prediction_conv, run_in_full_precision
from boxwright.losses.focal import summed_focal_loss_of_levels
from boxwright.ops.anchors import grid_anchors, octave_anchors
from boxwright.ops.box_deltas import decode_deltas, encode_deltas
from boxwright.ops.box_matching import IGNORED, match_by_iou, matched_anchors
from boxwright.ops.boxes import at_least_float32, generalized_iou
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets

__all__ = ["RetinaNet"]

BoxLoss = Literal["l1", "giou"]


class RetinaNet(nn.Module):
    """Two towers of convolutions, shared by all levels, tell classes and boxes of the anchors at each cell.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the towers; where None, that of the levels if they share one, else 256. Levels of another
            width are projected to it.
        num_convs: of each tower.
        norm: of the towers: ``none``, or ``group`` (torchvision's V2).
        anchor_scale: side of a level's smallest anchors, in strides.
        octave_steps: sizes of anchors before the side has doubled.
        ratios: heights of the anchors, in widths.
        round_anchors: sides and corners are whole pixels (torchvision).
        box_loss: ``l1`` of the deltas, or ``giou`` of the boxes (torchvision's V2).
        positive_iou: least IoU of an anchor with the object that it is trained on.
        negative_iou: IoU below which an anchor is background.
        alpha: weight of positives in the focal loss, in [0, 1].
        gamma: exponent that lowers the weight of easy predictions.
        score_threshold: detections have a higher score.
        nms_threshold: detections that overlap a better one of their class by more are left out.
        pre_nms_top_k: detections of a level before those are left out.
        max_detections: most detections of an image.

    Source: Lin et al., RetinaNet, ICCV 2017, sections 3 and 4. Checked against torchvision 0.29.2, V1 and V2: same
    weights, same outputs, detections, losses and gradients. Torchvision's and not the paper's are L1 where the paper
    has smooth L1, and anchors given to an object although they fit it badly, where none fits it better; torchvision's
    alone are anchors of whole pixels, where detectron2 and mmdetection keep the fractions. Differs in taking any
    number of levels of any stride: there, sides go by the level and strides by the image's size.
    """

    base_anchors: Float[Tensor, "l a 4"]

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        num_convs: int = 4,
        norm: TowerNorm = "none",
        anchor_scale: float = 4.0,
        octave_steps: int = 3,
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        round_anchors: bool = True,
        box_loss: BoxLoss = "l1",
        positive_iou: float = 0.5,
        negative_iou: float = 0.4,
        alpha: float = 0.25,
        gamma: float = 2.0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        pre_nms_top_k: int = 1000,
        max_detections: int = 300,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "pre_nms_top_k": pre_nms_top_k, "max_detections": max_detections})
        check_shares({"alpha": alpha, "score_threshold": score_threshold, "nms_threshold": nms_threshold})
        if not 0 <= negative_iou <= positive_iou <= 1:
            raise ValueError(
                f"0 <= negative_iou <= positive_iou <= 1 does not hold for {negative_iou} and {positive_iou}"
            )
        if gamma < 0:
            raise ValueError(f"gamma is at least 0, not {gamma}")
        check_choice("box_loss", box_loss, get_args(BoxLoss))
        self.num_classes, self.box_loss = num_classes, box_loss
        self.match = partial(match_by_iou, positive=positive_iou, negative=negative_iou, low_quality="ties")
        self.alpha, self.gamma = alpha, gamma
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.pre_nms_top_k, self.max_detections = pre_nms_top_k, max_detections

        self.widths = InputProjection(in_spec, channels)
        self.strides = [in_spec[name].stride for name in self.widths.levels]
        base = [
            octave_anchors(anchor_scale * stride, octave_steps, ratios, whole_pixels=round_anchors)
            for stride in self.strides
        ]
        self.register_buffer("base_anchors", torch.stack(base), persistent=False)
        num_anchors = len(base[0])
        width = self.widths.channels
        self.class_tower = ConvTower(width, num_convs, norm=norm)
        self.box_tower = ConvTower(width, num_convs, norm=norm)
        # Every class starts at probability 0.01: else the many background anchors would drown the start.
        self.classes = prediction_conv(width, num_anchors * num_classes, value=-math.log(99))
        self.boxes = prediction_conv(width, num_anchors * 4)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> AnchorOutput:
        """Predict; with targets or without them the same."""
        maps = self.widths(features)
        logits = flatten_predictions(
            conv_over_levels(self.classes, self.class_tower.over_levels(maps)), self.num_classes
        )
        deltas = flatten_predictions(
            [run_in_full_precision(self.boxes, x) for x in self.box_tower.over_levels(maps)], 4
        )
        return AnchorOutput(tuple(logits), tuple(deltas), self._anchors(maps))

    def loss(
        self, output: AnchorOutput, targets: Sequence[Targets], totals: LossTotals | None = None
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
        matched = torch.stack([self.match(anchors, t.boxes.to(anchors.dtype)) for t in targets])  # b n
        image, place, boxes, labels = matched_anchors(matched, targets)
        weights = 1 / (totals.images_per_process * (matched >= 0).sum(1).clamp(min=1).to(anchors.dtype))
        with torch.autocast(image.device.type, enabled=False):
            counted = weights[:, None] * (matched != IGNORED)
            focal = summed_focal_loss_of_levels(output.logits, labels, counted, alpha=self.alpha, gamma=self.gamma)
            deltas = at_least_float32(torch.cat(output.deltas, 1)[image, place])
            box = (weights[image] * self._box_losses(deltas, anchors[place], boxes.to(anchors.dtype))).sum()
        return {"focal": focal, self.box_loss: box}

    def postprocess(self, output: AnchorOutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """The best (anchor, class) pairs that no better one of their class suppresses, in original pixels."""
        return dense_detections(
            [at_least_float32(logits).sigmoid() for logits in output.logits],
            output.deltas,
            output.anchors,
            image_sizes,
            decode=decode_deltas,
            suppress=partial(hard_nms, threshold=self.nms_threshold),
            score_threshold=self.score_threshold,
            pre_nms_top_k=self.pre_nms_top_k,
            max_detections=self.max_detections,
        )

    def _anchors(self, maps: Sequence[Float[Tensor, "b c _h _w"]]) -> tuple[Float[Tensor, "_n 4"], ...]:
        bases = at_least_float32(self.base_anchors)
        return tuple(
            grid_anchors(base, x.shape[-2], x.shape[-1], stride)
            for base, x, stride in zip(bases, maps, self.strides, strict=True)
        )

    def _box_losses(
        self, deltas: Float[Tensor, "n 4"], anchors: Float[Tensor, "n 4"], boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, " n"]:
        if self.box_loss == "l1":
            return (deltas - encode_deltas(boxes, anchors)).abs().sum(-1)
        return 1 - generalized_iou(decode_deltas(deltas, anchors), boxes)
