"""Predictions of query heads as detections of fixed shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy
from boxwright.ops.finite import nan_like_any
from boxwright.ops.ranking import rank
from boxwright.queries.mask_branch import MaskFactors
from boxwright.structures import Decoded, ObjectLimit


@runtime_checkable
class QueryOutput(Protocol):
    """Output of a query head: predictions of decoder layers, and the sizes of the images inside their padding."""

    @property
    def logits(self) -> Float[Tensor, "l b q k"]: ...

    @property
    def boxes_cxcywh_norm(self) -> Float[Tensor, "l b q 4"]: ...

    @property
    def valid_sizes(self) -> Float[Tensor, "#b 2"]: ...

    @property
    def masks(self) -> MaskFactors | None: ...


class PairDetections:
    """Detections of a head whose queries score every class on its own; a base class.

    Such a head has ``num_queries`` and ``max_detections``, the number of (query, class) pairs that it detects.
    """

    num_queries: int
    max_detections: int

    def decode(self, output: QueryOutput) -> Decoded:
        """Decode the best (query, class) pairs of the last decoder layer; ties keep their order."""
        return decode_pairs(
            output.logits[-1], output.boxes_cxcywh_norm[-1], output.valid_sizes, self.max_detections, output.masks
        )

    def object_limits(self) -> Sequence[ObjectLimit]:
        """List the options that limit the number of detections."""
        limits = {"num_queries": self.num_queries, "max_detections": self.max_detections}
        return [ObjectLimit(option, limit) for option, limit in limits.items()]

    def raise_limits(self, max_detections: int) -> None:
        """Detect at least so many pairs; the number of queries is fixed by the weights."""
        self.max_detections = max(self.max_detections, max_detections)


def decode_pairs(
    logits: Float[Tensor, "b q k"],
    boxes_cxcywh_norm: Float[Tensor, "b q 4"],
    valid_sizes: Float[Tensor, "#b 2"],
    max_detections: int,
    masks: MaskFactors | None = None,
) -> Decoded:
    """Decode the best (query, class) pairs of each image; ties keep their order.

    Args:
        logits: of each class on its own.
        boxes_cxcywh_norm: center boxes relative to the image inside its padding.
        valid_sizes: (height, width) of each image inside its padding, or of all.
        max_detections: most pairs of an image; 100 in Deformable DETR, 300 in RT-DETR.
        masks: of the queries; None where they have none.

    Source: ``PostProcess`` of fundamentalvision/Deformable-DETR 11169a6; RTDETRPostProcessor of lyuwenyu/RT-DETR
    068dfde. Differs in the order of ties, which there is left to top k.
    """
    scores, queries, labels = rank_pairs(logits, max_detections)
    scores = scores + nan_like_any(logits, boxes_cxcywh_norm)[:, None]
    return _decode(RankedQueries(scores, queries, labels), boxes_cxcywh_norm, valid_sizes, masks)


class RankedQueries(NamedTuple):
    """Scores, queries and labels of the detections of an output, best first."""

    scores: Float[Tensor, "b n"]
    queries: Int[Tensor, "b n"]
    labels: Int[Tensor, "b n"]


def rank_pairs(logits: Float[Tensor, "b q k"], max_detections: int) -> RankedQueries:
    """Find the best (query, class) pairs; ties keep their order.

    Args:
        logits: of each class on its own.
        max_detections: most pairs of an image.
    """
    num_classes = logits.shape[-1]
    # Top k would leave the order of ties to chance.
    scores, pairs = rank(at_least_float32(logits).sigmoid().flatten(1), max_detections)
    return RankedQueries(scores, pairs // num_classes, pairs % num_classes)


def decode_best_classes(
    logits: Float[Tensor, "b q k"],
    boxes_cxcywh_norm: Float[Tensor, "b q 4"],
    valid_sizes: Float[Tensor, "#b 2"],
    masks: MaskFactors | None = None,
) -> Decoded:
    """Decode each query's best class; ties keep their order.

    Args:
        logits: (b, q, classes + 1), of the classes and, last, of "no object", which is never the answer.
        boxes_cxcywh_norm: center boxes relative to the image inside its padding.
        valid_sizes: (height, width) of each image inside its padding, or of all.
        masks: of the queries; None where they have none.

    Source: ``PostProcess`` of facebookresearch/detr 29901c5, which leaves the detections unsorted.
    """
    scores, queries, labels = rank_queries(logits)
    scores = scores + nan_like_any(logits, boxes_cxcywh_norm)[:, None]
    return _decode(RankedQueries(scores, queries, labels), boxes_cxcywh_norm, valid_sizes, masks)


def rank_queries(logits: Float[Tensor, "b q k"]) -> RankedQueries:
    """Find the best class of each query; ties keep their order.

    Args:
        logits: of the classes and, last, of "no object".
    """
    scores, labels = at_least_float32(logits).softmax(-1)[..., :-1].max(-1)
    scores, queries = rank(scores, scores.shape[1])
    return RankedQueries(scores, queries, labels.gather(1, queries))


def _decode(
    ranked: RankedQueries,
    boxes_cxcywh_norm: Float[Tensor, "b q 4"],
    valid_sizes: Float[Tensor, "#b 2"],
    masks: MaskFactors | None,
) -> Decoded:
    scores, queries, labels = ranked
    corners = take_in_pixels(cxcywh_to_xyxy(boxes_cxcywh_norm), queries, valid_sizes)
    valid = torch.ones_like(labels, dtype=torch.bool)
    if masks is None:
        return Decoded(corners, scores, labels, valid)
    probabilities = masks.probabilities(queries)
    scores = scores + nan_like_any(probabilities)[:, None]
    return Decoded(corners, scores, labels, valid, probabilities, masks.regions(corners))


def take_in_pixels(
    sides: Float[Tensor, "b q 4"], queries: Int[Tensor, "b n"], valid_sizes: Float[Tensor, "#b 2"]
) -> Float[Tensor, "b n 4"]:
    """Look up what some queries have for x1, y1, x2, y2, and convert it to pixels of the network input.

    Args:
        sides: of all queries, relative to the image inside its padding.
        queries: indices.
        valid_sizes: (height, width) of each image inside its padding, or of all.
    """
    return sides.gather(1, queries[..., None].expand(-1, -1, 4)) * valid_sizes.flip(-1).repeat(1, 2)[:, None]
