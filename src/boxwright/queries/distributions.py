"""Boxes whose sides are distributions: bins, decoding and targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.layers.conv import Activation
from boxwright.layers.mlp import MLP
from boxwright.layers.predictions import run_in_full_precision
from boxwright.layers.tokens import LevelTokens
from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from boxwright.queries.decoder import Modules, spread_over_levels
from boxwright.queries.groups import fold_groups

UPPER = 0.5
"""End of the inner bins, in sides of the reference; the outermost two lie twice as far out."""


class SideBins:
    """Offsets that the sides of a box move by, in bins that are fine around 0 and coarse at the ends.

    An offset of W moves a side by W / scale of the reference's width or height. The bins are
    W = -2a, 1 - s^(n/2-1), ..., 1 - s, 0, s - 1, ..., s^(n/2-1) - 1, 2a with a = scale / 2, s = (a + 1)^(2 / (n - 2)).

    Args:
        num_bins: n; there are n + 1. Even, at least 4.
        scale: larger ones make the inner bins finer; positive.

    Raises:
        ValueError: for another number or scale.

    Source: Peng et al., D-FINE, ICLR 2025, equations 2 and 3. Checked against ``weighting_function``,
    ``distance2bbox`` and ``bbox2distance`` of Peterande/D-FINE 4a1f73a. Differs in storing nothing: theirs keeps a and
    the scale among the weights, though nothing trains them.
    """

    def __init__(self, num_bins: int, scale: float) -> None:
        if num_bins < 4 or num_bins % 2:
            raise ValueError(f"num_bins is even and at least 4, not {num_bins}")
        if not scale > 0:
            raise ValueError(f"bin_scale is positive, not {scale}")
        self.num_bins, self.scale = num_bins, scale

    def offsets(self, like: Tensor) -> Float[Tensor, " n"]:
        """Compute the offsets on the device and in the type of a tensor, without a copy from the CPU."""
        half, upper = self.num_bins // 2, UPPER * self.scale
        steps = torch.arange(-half, half + 1, device=like.device, dtype=like.dtype)
        inner = torch.expm1(steps.abs() * (math.log(upper + 1) / (half - 1)))
        return steps.sign() * torch.where(steps.abs() == half, 2 * upper, inner)

    def decode(
        self, reference: Float[Tensor, "b q 4"], side_logits: Float[Tensor, "*l b q 4 k"]
    ) -> Float[Tensor, "*l b q 4"]:
        """Decode the expected offsets of the sides to center boxes, in units of ``reference``."""
        probabilities = at_least_float32(side_logits).softmax(-1)
        # Not a product of matrices, with which OpenVINO 2026.4 fuses the division in a way that it cannot run.
        moved = (probabilities * (self.offsets(probabilities) / self.scale)).sum(-1)
        center, size = reference[..., :2], reference[..., 2:]
        first, last = center - (0.5 + moved[..., :2]) * size, center + (0.5 + moved[..., 2:]) * size
        return xyxy_to_cxcywh(torch.cat((first, last), -1))

    def measure_std(
        self, reference: Float[Tensor, "b q 4"], side_logits: Float[Tensor, "*l b q 4 k"]
    ) -> Float[Tensor, "*l b q 4"]:
        """Measure the standard deviation of each side (x1, y1, x2, y2), in units of ``reference``."""
        probabilities = at_least_float32(side_logits).softmax(-1)
        offsets = self.offsets(probabilities) / self.scale
        mean = (probabilities * offsets).sum(-1, keepdim=True)
        variance = (probabilities * (offsets - mean) ** 2).sum(-1)
        return variance.sqrt() * reference[..., 2:].repeat(1, 1, 2)

    def locate(
        self, reference: Float[Tensor, "n 4"], objects: Float[Tensor, "n 4"]
    ) -> tuple[Int[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """Locate the sides of objects among the bins.

        Args:
            reference: center boxes.
            objects: likewise, in the same units.

        Returns:
            the bin on the left of each side, 0..n-1, and how near the side is to the one on its right, in [0, 1];
            what lies beyond the ends is at them.
        """
        corners, center = cxcywh_to_xyxy(objects), reference[:, :2]
        distances = torch.cat((center - corners[:, :2], corners[:, 2:] - center), -1)
        moved = (distances / (reference[:, 2:].repeat(1, 2) + 1e-16) - 0.5) * self.scale
        offsets = self.offsets(moved)
        left = torch.searchsorted(offsets, moved.contiguous(), right=True).sub(1).clamp(0, self.num_bins - 1)
        low, high = offsets[left], offsets[left + 1]
        return left, ((moved - low) / (high - low)).clamp(0, 1)


class DistributionLayers(NamedTuple):
    """Predictions of decoder layers whose boxes are distributions.

    ``logits``, ``boxes_cxcywh_norm`` and ``side_logits`` (of the bins of x1, y1, x2, y2) are those of the layers. The
    sides move from ``initial_boxes_cxcywh_norm``, which the first layer predicts with ``initial_logits``.
    """

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]
    side_logits: Float[Tensor, "l b q 4 n"]
    initial_logits: Float[Tensor, "b q k"]
    initial_boxes_cxcywh_norm: Float[Tensor, "b q 4"]

    def list_boxes(
        self, *others: tuple[Float[Tensor, "b q k"], Float[Tensor, "b q 4"]]
    ) -> tuple[Float[Tensor, "_l b q k"], Float[Tensor, "_l b q 4"]]:
        """List the logits and boxes of the layers, then the initial ones, and then others."""
        logits, boxes = zip((self.initial_logits, self.initial_boxes_cxcywh_norm), *others, strict=True)
        return torch.cat((self.logits, torch.stack(logits))), torch.cat((self.boxes_cxcywh_norm, torch.stack(boxes)))

    def fold(self, num_groups: int) -> DistributionLayers:
        """Make each of several groups of queries an image of the batch."""
        layers = (fold_groups(x, num_groups, axis=1) for x in self[:3])
        return DistributionLayers(*layers, *(fold_groups(x, num_groups, axis=0) for x in self[3:]))

    def join(self, others: DistributionLayers) -> DistributionLayers:
        """Append the predictions of other images."""
        pairs = list(zip(self, others, strict=True))
        return DistributionLayers(*(torch.cat(x, 1) for x in pairs[:3]), *(torch.cat(x) for x in pairs[3:]))

    def split(self, count: int) -> tuple[DistributionLayers, DistributionLayers]:
        """Split off the first ``count`` queries."""
        first = DistributionLayers(*(x[:, :, :count] for x in self[:3]), *(x[:, :count] for x in self[3:]))
        rest = DistributionLayers(*(x[:, :, count:] for x in self[:3]), *(x[:, count:] for x in self[3:]))
        return first, rest


class LocationQuality(nn.Module):
    """Correction of class logits by how peaked the distributions of the sides are.

    A small network of the ``num_top`` largest probabilities of each side and of their mean; it begins at 0.

    Args:
        num_top: probabilities of each side.
        hidden_dim: of the network.
        activation: of the network.

    Source: Peng et al., D-FINE, ICLR 2025, after Li et al., GFLv2, CVPR 2021. Checked against ``LQE`` of
    Peterande/D-FINE 4a1f73a.
    """

    def __init__(self, num_top: int = 4, hidden_dim: int = 64, *, activation: Activation = "relu") -> None:
        super().__init__()
        self.num_top = num_top
        self.mlp = MLP(4 * (num_top + 1), hidden_dim, 1, 2, activation=activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin at no correction."""
        last = cast(nn.Linear, self.mlp.layers[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, side_logits: Float[Tensor, "b q 4 n"]) -> Float[Tensor, "b q 1"]:
        top = side_logits.softmax(-1).topk(self.num_top, -1).values
        statistics = torch.cat((top, top.mean(-1, keepdim=True)), -1).flatten(2)
        return run_in_full_precision(self.mlp, statistics)


class DistributionHeads(NamedTuple):
    """Modules that predict from the contents of queries: of each layer, and the initial box of the first."""

    classes: Modules
    sides: Modules
    qualities: Modules
    initial_boxes: nn.Module
    bins: SideBins

    def move(self, layer: int, content: Float[Tensor, "b q d"]) -> Float[Tensor, "b q n"]:
        """Predict what a layer adds to the logits of the sides; there is a module for each layer, or one for all."""
        return run_in_full_precision(self.sides[layer if len(self.sides) > 1 else 0], content)


def decode_distributions(
    layers: Modules,
    tokens: LevelTokens,
    content: Float[Tensor, "b q d"],
    reference: Float[Tensor, "b q 4"],
    *,
    positions: Callable[[Float[Tensor, "b q 4"]], Float[Tensor, "b q d"]],
    heads: DistributionHeads,
    every_layer: bool,
    blocked: Bool[Tensor, "*bm f f"] | None = None,
    num_groups: int = 1,
) -> tuple[DistributionLayers, list[Float[Tensor, "b q d"]]]:
    """Decode queries layer by layer; each layer adds to the logits of the sides.

    Args:
        layers: those that run.
        tokens: of all levels.
        content: of the queries.
        reference: center boxes to begin with, relative to the image inside its padding.
        positions: encoding of the references.
        heads: of the layers.
        every_layer: predict classes from every layer, and not from the last one only.
        blocked: True where a query (row) must not attend to another (column); see ``DeformableDecoderLayer``.
        num_groups: of queries that do not attend to those of other groups; likewise.

    Returns:
        predictions, and the contents that they come from after each layer that predicts.

    Source: Peng et al., D-FINE, ICLR 2025, section 4.1. Checked against ``TransformerDecoder`` of Peterande/D-FINE
    4a1f73a.
    """
    refiner, contents = SideRefiner(heads, reference), []
    for i, layer in enumerate(layers):
        content = layer(
            content,
            positions(reference),
            spread_over_levels(reference, tokens),
            tokens.memory,
            tokens.shapes,
            padding=tokens.padding,
            blocked=blocked,
            num_groups=num_groups,
        )
        predicts = every_layer or i == len(layers) - 1
        reference = refiner.refine(i, content, predicts=predicts).detach()
        contents += [content] if predicts else []
    return refiner.predictions(), contents


class SideRefiner:
    """Predictions from the contents of queries, layer after layer.

    Args:
        heads: of the layers.
        reference: center boxes that the first layer sampled around.
    """

    def __init__(self, heads: DistributionHeads, reference: Float[Tensor, "b q 4"]) -> None:
        self.heads, self.reference = heads, reference
        self.previous: Tensor | None = None
        self.sides: Tensor | None = None
        self.layers: list[tuple[Tensor, Tensor, Tensor]] = []

    def refine(self, index: int, content: Float[Tensor, "b q d"], *, predicts: bool) -> Float[Tensor, "b q 4"]:
        """Predict from the content after layer ``index``; return the boxes."""
        heads = self.heads
        if self.sides is None or self.previous is None:
            moved = run_in_full_precision(heads.initial_boxes, content) + inverse_sigmoid(self.reference)
            self.initial_boxes, self.initial_logits = moved.sigmoid(), heads.classes[0](content)
            sides = heads.move(index, content)
        else:
            sides = heads.move(index, content + self.previous) + self.sides
        side_logits = sides.unflatten(-1, (4, -1))
        boxes = heads.bins.decode(self.initial_boxes.detach(), side_logits)
        if predicts:
            logits = heads.classes[index](content)
            logits = logits + heads.qualities[index](side_logits).to(logits.dtype)
            self.layers.append((logits, boxes, side_logits))
        self.sides, self.previous = sides, content.detach()
        return boxes

    def predictions(self) -> DistributionLayers:
        """Return those of all layers that predict."""
        logits, boxes, sides = (torch.stack(of_layers) for of_layers in zip(*self.layers, strict=True))
        return DistributionLayers(logits, boxes, sides, self.initial_logits, self.initial_boxes)
