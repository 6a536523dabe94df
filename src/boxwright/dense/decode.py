"""From the predictions of dense heads to detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.dense.options import DenseDetectionOptions
from boxwright.dense.output import DenseOutput
from boxwright.dense.soft_nms import soft_nms
from boxwright.ops.boxes import at_least_float32, clip_to_sizes
from boxwright.ops.finite import nan_like_any
from boxwright.ops.nms import nms_top_k
from boxwright.ops.onnx_operators import operators_for_onnx
from boxwright.ops.ranking import rank
from boxwright.structures import Decoded

DecodeBoxes = Callable[[Tensor, Tensor], Tensor]
"""(offsets, anchors), both (..., 4), to corner boxes in pixels of the network input."""


def decode_dense(
    output: DenseOutput, decode_boxes: DecodeBoxes, options: DenseDetectionOptions, *, per_level: bool
) -> Decoded:
    """Select the best (anchor, class) pairs, cut their boxes to the image and suppress those that better ones cover.

    Of equal scores the first is the better one.

    Args:
        output: of a dense head.
        decode_boxes: offsets and anchors to boxes.
        options: thresholds and limits.
        per_level: ``pre_nms_top_k`` pairs of each level, or of all levels together.

    Source: Lin et al., RetinaNet, ICCV 2017, section 4.1. Checked against torchvision 0.29.2's RetinaNet and FCOS,
    which leave the order of equal scores to chance, and against effdet 0.4.1; with ``best_class`` and ``soft_nms``,
    against ``topk_class_boxes`` and ``nms_np`` of google/automl 6a54c87, but for the pixel that it adds to sides.
    """
    candidates, best = rank_candidates(output, decode_boxes, options, per_level=per_level)
    kept, score, valid = suppress(candidates, options, output.logits[0].shape[-1])
    score = score + nan_like_any(*best, *output.offsets)[:, None]
    return Decoded(take_rows(candidates.boxes, kept), score, candidates.labels.gather(1, kept), valid)


class DenseCandidates(NamedTuple):
    """(anchor, class) pairs before suppression, those of a level best first.

    ``boxes`` are cut to the image; ``anchors`` are indices, level by level, or of all levels together.
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]
    anchors: Sequence[Int[Tensor, "b _n"]]


def rank_candidates(
    output: DenseOutput, decode_boxes: DecodeBoxes, options: DenseDetectionOptions, *, per_level: bool
) -> tuple[DenseCandidates, list[Float[Tensor, "b _a"]]]:
    """Select the best (anchor, class) pairs; return them, and the best score of every anchor, level by level.

    Args:
        output: of a dense head.
        decode_boxes: as for ``decode_dense``.
        options: likewise.
        per_level: likewise.
    """
    boxes, scores, labels, best, indices = [], [], [], [], []
    for logits, offsets, anchors, centerness in (output if per_level else output.join_levels()).by_level():
        best_of_anchor = _scores(logits.amax(-1, keepdim=True), centerness)[..., 0]
        if options.best_class:
            anchor = stable_top_k(best_of_anchor, options.pre_nms_top_k)
            label, score = logits.argmax(-1).gather(1, anchor), best_of_anchor.gather(1, anchor)
        else:
            anchor, label, score = _best_pairs(logits, centerness, best_of_anchor, options.pre_nms_top_k)
        boxes.append(decode_boxes(take_rows(offsets, anchor), anchors[anchor]))
        scores.append(score)
        labels.append(label)
        indices.append(anchor)
        # The maximum is not a number where any class is not.
        best.append(best_of_anchor)
    box, score, label = (torch.cat(parts, 1) for parts in (boxes, scores, labels))
    box, valid = clip_to_sizes(box, output.valid_sizes), score > options.score_threshold
    if not options.keep_empty:
        valid &= (box[..., 2:] > box[..., :2]).all(-1)
    return DenseCandidates(box, score, label, valid, indices), best


def suppress(
    candidates: DenseCandidates, options: DenseDetectionOptions, num_classes: int
) -> tuple[Int[Tensor, "b m"], Float[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Keep the best candidates of those that overlap; return indices, scores, and False where they fill up."""
    box, score, label, valid, _ = candidates
    if options.soft_nms:
        return soft_nms(box, score, label, valid, max_detections=options.max_detections)
    kept, valid = nms_top_k(
        box,
        score,
        label,
        valid,
        threshold=options.nms_threshold,
        count=options.max_detections,
        num_groups=num_classes,
    )
    return kept, score.gather(1, kept), valid


def stable_top_k(scores: Float[Tensor, "b n"], count: int) -> Int[Tensor, "b m"]:
    """Find the indices of the ``count`` largest scores of each row, or of all; of equal ones the first is larger.

    Args:
        scores: at least 0.
        count: as many, or all where there are fewer.
    """
    if operators_for_onnx():
        return rank(scores, count)[1]
    if torch.compiler.is_compiling() or scores.dtype != torch.float32:
        # A slice would fix in an export whether there are more.
        least = torch.arange(torch.sym_min(scores.shape[1], count), device=scores.device)
        return scores.sort(dim=1, descending=True, stable=True).indices.index_select(1, least)
    # Top k leaves the order of equal keys to chance, so that every key is another one: bits of a number that is not
    # negative are ordered as the number is, and below them stands the index, the first one highest.
    size = scores.shape[1]
    keys = scores.view(torch.int32).long().bitwise_left_shift_(32)
    keys.bitwise_or_(torch.arange(size - 1, -1, -1, device=scores.device))
    return size - 1 - keys.topk(min(count, size), dim=1).values.bitwise_and_(0xFFFFFFFF)


def take_rows(x: Float[Tensor, "b n d"], index: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    """Select rows of each image."""
    image = torch.arange(x.shape[0], device=x.device)[:, None]
    return x[image, index]


def _best_pairs(
    logits: Float[Tensor, "b a k"],
    centerness: Float[Tensor, "b a 1"] | None,
    best_of_anchor: Float[Tensor, "b a"],
    count: int,
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Select anchors, classes and scores of the best pairs, best first.

    The best ``count`` pairs are among the classes of the ``count`` anchors whose best class has the highest score:
    scores of all other pairs are not computed.
    """
    if torch.compiler.is_compiling() or logits.shape[1] > count:
        # In the order of the anchors, so that of equal scores the first anchor's stays the first.
        anchor = stable_top_k(best_of_anchor, count).sort(1).values
        logits = take_rows(logits, anchor)
        centerness = None if centerness is None else take_rows(centerness, anchor)
    else:
        anchor = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    scores, num_classes = _scores(logits, centerness).flatten(1), logits.shape[-1]
    pair = stable_top_k(scores, count)
    return anchor.gather(1, pair // num_classes), pair % num_classes, scores.gather(1, pair)


def _scores(logits: Float[Tensor, "b a k"], centerness: Float[Tensor, "b a 1"] | None) -> Float[Tensor, "b a k"]:
    """Compute class probabilities, or sqrt(class probability * centerness)."""
    scores = at_least_float32(logits).sigmoid()
    return scores if centerness is None else (scores * at_least_float32(centerness).sigmoid()).sqrt()
