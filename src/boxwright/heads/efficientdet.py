"""EfficientDet's head: separable convolutions that all levels share, with norms of each level's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.dense.decode import dense_detections, hard_nms
from boxwright.dense.soft_nms import soft_nms as soften
from boxwright.dense.towers import AnchorOutput
from boxwright.detections import Detections
from boxwright.layers.conv import fold
from boxwright.layers.option_checks import check_counts, check_shares
from boxwright.layers.predictions import InputProjection, flatten_predictions, run_in_full_precision
from boxwright.layers.separable_conv import SeparableConv, efficientdet_norm
from boxwright.losses.focal import summed_focal_loss_of_levels
from boxwright.ops.anchors import grid_anchors
from boxwright.ops.box_deltas import decode_deltas, encode_deltas
from boxwright.ops.box_matching import match_by_iou, matched_anchors
from boxwright.ops.boxes import at_least_float32
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets

__all__ = ["EfficientDet"]


class EfficientDet(nn.Module):
    """Two towers of separable convolutions tell classes and boxes of the anchors around the middle of each cell.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the towers; where None, that of the levels if they share one, else 256. Levels of another
            width are projected to it.
        num_convs: of each tower: 3 in D0 to D2, 4 in D3 to D5, 5 from D6 on.
        norm_momentum: of the running statistics of batch norms, the share of the newest batch, in (0, 1].
        anchor_scale: side of a level's smallest anchors, in strides; 5 in D7.
        octave_steps: sizes of anchors before the side has doubled.
        aspects: (width, height) of the anchors of one size, in sides.
        matching_iou: least IoU of an anchor with the object that it is trained on; below, it is background, unless it
            is the one that overlaps an object most.
        alpha: weight of positives in the focal loss, in [0, 1].
        gamma: exponent that lowers the weight of easy predictions.
        huber_delta: deviation up to which the box loss is quadratic.
        box_weight: of the box loss.
        score_threshold: detections have a higher score.
        soft_nms: detections that overlap a better one of their class get a lower score instead of being left out.
        nms_threshold: IoU above which they are left out.
        pre_nms_top_k: (anchor, class) pairs of an image before that.
        max_detections: most detections of an image.

    Source: Tan et al., EfficientDet, CVPR 2020, section 4. Checked against effdet 0.4.1, whose weights are
    google/automl's: same weights, same outputs, matches, losses (its default focal loss), gradients and detections.
    Differs in the order of a box's numbers, x before y; in counting a deviation whose target is exactly 0 in the loss,
    which both leave out; in limiting how far a side can grow; and in anchors that follow the strides of the levels
    where the sides of an image are no multiples of them.
    """

    base_anchors: Float[Tensor, "l a 4"]

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        num_convs: int = 3,
        norm_momentum: float = 0.01,
        anchor_scale: float = 4.0,
        octave_steps: int = 3,
        aspects: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)),
        matching_iou: float = 0.5,
        alpha: float = 0.25,
        gamma: float = 1.5,
        huber_delta: float = 0.1,
        box_weight: float = 50.0,
        score_threshold: float = 0.0,
        soft_nms: bool = False,
        nms_threshold: float = 0.5,
        pre_nms_top_k: int = 5000,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "pre_nms_top_k": pre_nms_top_k, "max_detections": max_detections})
        check_shares({"matching_iou": matching_iou, "alpha": alpha})
        check_shares({"score_threshold": score_threshold, "nms_threshold": nms_threshold})
        check_shares({"norm_momentum": norm_momentum}, zero=False)
        if gamma < 0 or box_weight < 0 or huber_delta <= 0:
            raise ValueError(
                "gamma and box_weight are at least 0, and huber_delta is above 0, "
                f"not {gamma}, {box_weight} and {huber_delta}"
            )
        self.num_classes = num_classes
        self.match = partial(match_by_iou, positive=matching_iou, negative=matching_iou, low_quality="best")
        self.alpha, self.gamma, self.huber_delta, self.box_weight = alpha, gamma, huber_delta, box_weight
        self.score_threshold, self.pre_nms_top_k, self.max_detections = score_threshold, pre_nms_top_k, max_detections
        self.suppress = partial(hard_nms, threshold=nms_threshold)
        if soft_nms:
            self.suppress = partial(soften, max_detections=max_detections)

        self.widths = InputProjection(in_spec, channels)
        self.strides = [in_spec[name].stride for name in self.widths.levels]
        base = torch.stack([_base_anchors(stride, anchor_scale, octave_steps, aspects) for stride in self.strides])
        self.register_buffer("base_anchors", base, persistent=False)
        num_anchors, width = base.shape[1], self.widths.channels
        self.class_tower = Tower(width, num_convs, self.widths.levels)
        self.box_tower = Tower(width, num_convs, self.widths.levels)
        self.classes = SeparableConv(width, num_anchors * num_classes)
        self.boxes = SeparableConv(width, num_anchors * 4)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum
        # Every class starts at probability 0.01: else the many background anchors would drown the start.
        nn.init.constant_(self.classes.pointwise.bias, -math.log(99))  # type: ignore[arg-type]

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> AnchorOutput:
        """Predict; with targets or without them the same."""
        maps = dict(zip(self.widths.levels, self.widths(features), strict=True))
        logits = flatten_predictions(
            [self.classes(self.class_tower(x, name)) for name, x in maps.items()], self.num_classes
        )
        deltas = flatten_predictions(
            [run_in_full_precision(self.boxes, self.box_tower(x, name)) for name, x in maps.items()], 4
        )
        anchors = self._anchors([(x.shape[-2], x.shape[-1]) for x in maps.values()])
        return AnchorOutput(tuple(logits), tuple(deltas), anchors)

    def loss(
        self, output: AnchorOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``focal`` over all anchors, and ``huber`` over the four deviations of the matched ones.

        Both are divided by the number of matched anchors and one more, ``huber`` also by four.

        Args:
            output: of ``forward``.
            targets: one per image.
            totals: of the whole optimizer step, with matches; of these targets where None.

        Raises:
            ValueError: the matches of the step were not counted.
        """
        anchors = torch.cat(output.anchors)
        matched = torch.stack([self.match(anchors, t.boxes.to(anchors.dtype)) for t in targets])  # b n
        image, place, boxes, labels = matched_anchors(matched, targets)
        totals = totals or LossTotals.of(targets)._replace(matches=len(place))
        if totals.matches is None:
            raise ValueError("this head's losses need LossTotals with matches; Detector.totals counts them")
        share = (totals.matches + 1) / totals.processes
        wanted = encode_deltas(boxes.to(anchors.dtype), anchors[place])
        # Logarithms and small deviations in half precision lose what the boxes are about.
        with torch.autocast(anchors.device.type, enabled=False):
            found = at_least_float32(torch.cat(output.deltas, 1)[image, place])
            huber = F.huber_loss(found, wanted, reduction="sum", delta=self.huber_delta)
            focal = summed_focal_loss_of_levels(output.logits, labels, alpha=self.alpha, gamma=self.gamma)
            return {
                "focal": focal / share,
                "huber": self.box_weight * huber / (4 * share),
            }

    def count_matches(self, targets: Sequence[Targets], canvas: tuple[int, int]) -> int:
        """How many anchors belong to an object, over these images.

        Args:
            targets: one per image.
            canvas: (height, width) of the network's input.
        """
        anchors = torch.cat(self._anchors([(-(-canvas[0] // s), -(-canvas[1] // s)) for s in self.strides]))
        return sum(int((self.match(anchors, t.boxes.to(anchors)) >= 0).sum()) for t in targets)

    def postprocess(self, output: AnchorOutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """The best (anchor, class) pairs of all levels together that are not suppressed, in original pixels."""
        return dense_detections(
            [at_least_float32(torch.cat(output.logits, 1)).sigmoid()],
            [torch.cat(output.deltas, 1)],
            [torch.cat(output.anchors)],
            image_sizes,
            decode=decode_deltas,
            suppress=self.suppress,
            score_threshold=self.score_threshold,
            pre_nms_top_k=self.pre_nms_top_k,
            max_detections=self.max_detections,
        )

    def _anchors(self, shapes: Sequence[tuple[int, int]]) -> tuple[Float[Tensor, "_n 4"], ...]:
        """Anchors of all levels, whose maps have these (height, width)."""
        levels = zip(at_least_float32(self.base_anchors), shapes, self.strides, strict=True)
        return tuple(grid_anchors(base, height, width, stride) for base, (height, width), stride in levels)


class Tower(nn.Module):
    """Separable convolutions, shared by all levels, each with a norm of the level's own and a swish.

    Args:
        channels: of input and output.
        num_convs: how many; at least 0.
        levels: their names.
    """

    def __init__(self, channels: int, num_convs: int, levels: Sequence[str]) -> None:
        super().__init__()
        check_counts({"num_convs": num_convs}, least=0)
        self.blocks = nn.ModuleList(SharedConv(channels, levels) for _ in range(num_convs))

    def forward(self, x: Float[Tensor, "b c h w"], level: str) -> Float[Tensor, "b c h w"]:
        for block in self.blocks:
            x = block(x, level)
        return x


class SharedConv(nn.Module):
    """A separable convolution, shared by all levels, a norm of the level's own and a swish.

    Args:
        channels: of input and output.
        levels: their names.
    """

    def __init__(self, channels: int, levels: Sequence[str]) -> None:
        super().__init__()
        self.conv = SeparableConv(channels, channels)
        self.norms = nn.ModuleDict({level: efficientdet_norm(channels) for level in levels})
        self.activation = nn.SiLU()

    def forward(self, x: Float[Tensor, "b c h w"], level: str) -> Float[Tensor, "b c h w"]:
        return self.activation(self.norms[level](self.conv(x)))  # type: ignore[no-any-return]

    def fold_norms(self) -> None:
        """Give every level a 1 x 1 convolution that holds its norm. For inference: statistics are frozen by it."""
        pointwise = self.conv.pointwise
        if isinstance(pointwise, nn.Identity):
            return
        assert isinstance(pointwise, nn.Conv2d)
        for level, norm in self.norms.items():
            self.norms[level] = fold(pointwise, norm)
        self.conv.pointwise = nn.Identity()


def _base_anchors(
    stride: int, scale: float, steps: int, aspects: Sequence[tuple[float, float]]
) -> Float[Tensor, "a 4"]:
    """Corner boxes around the middle of the first cell: all aspects of the first size, then of the next."""
    if scale <= 0 or steps < 1 or not aspects or min(min(aspect) for aspect in aspects) <= 0:
        raise ValueError(
            "anchors need an anchor_scale above 0, octave_steps of 1 or more and aspects above 0, "
            f"not {scale}, {steps} and {list(aspects)}"
        )
    sides = [scale * stride * 2 ** (i / steps) for i in range(steps)]
    half = torch.tensor([(side * width / 2, side * height / 2) for side in sides for width, height in aspects])
    return torch.cat((stride / 2 - half, stride / 2 + half), 1)
