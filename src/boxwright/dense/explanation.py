"""Explanations of dense heads: the anchor of a detection, and the neighbors that it suppressed."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from boxwright.dense.decode import DecodeBoxes, DenseCandidates, rank_candidates, suppress
from boxwright.dense.options import DenseDetectionOptions
from boxwright.dense.output import DenseOutput
from boxwright.dense.soft_nms import SIGMA
from boxwright.layers.level_cells import LevelCells, list_neighbors
from boxwright.mechanism import DenseMechanism, Neighbors
from boxwright.ops.boxes import at_least_float32, iou
from boxwright.ops.nms import find_suppressed

LEAST_DECAY = 0.01
"""Fraction of its score that soft NMS takes from a neighbor, at least, for it to be listed."""


class DenseExplainer:
    """Explanation of the detections of one image.

    Args:
        output: of the head.
        decode_boxes: of the head.
        options: of the head.
        per_level: as for ``decode_dense``.
        cells: of the levels.
    """

    def __init__(
        self,
        output: DenseOutput,
        decode_boxes: DecodeBoxes,
        options: DenseDetectionOptions,
        *,
        per_level: bool,
        cells: LevelCells,
    ) -> None:
        self.output, self.options, self.cells = output, options, cells
        self.candidates, _ = rank_candidates(output, decode_boxes, options, per_level=per_level)
        self.kept, self.scores, _ = suppress(self.candidates, options, output.logits[0].shape[-1])
        self.anchors = _number_anchors(self.candidates, output, per_level=per_level)

    def explain(self, detection: int) -> DenseMechanism:
        """Explain the detection of this index."""
        kept, candidates = int(self.kept[0, detection]), self.candidates
        index, label, joined = int(self.anchors[kept]), int(candidates.labels[0, kept]), self.output.join_levels()
        num_anchors = len(joined.anchors[0]) // sum(h * w for h, w in self.cells.shapes)
        centerness = joined.centerness
        if self.options.soft_nms:
            neighbors, suppressed_by = self._soft(detection)
        else:
            neighbors, suppressed_by = self._removed(kept), list_neighbors(candidates.boxes, candidates.scores, kept)
        return DenseMechanism(
            box=candidates.boxes[0, kept].float().cpu(),
            label=label,
            score=float(self.scores[0, detection]),
            anchor=self.cells.anchor(index, num_anchors, joined.anchors[0][index]),
            rank=1 + int((candidates.scores[0] > candidates.scores[0, kept]).sum()),
            class_score=float(at_least_float32(joined.logits[0][0, index, label]).sigmoid()),
            centerness=None if centerness is None else float(at_least_float32(centerness[0][0, index, 0]).sigmoid()),
            neighbors=neighbors,
            suppressed_by=suppressed_by,
        )

    def _removed(self, kept: int) -> Neighbors:
        box, score, label, valid, _ = self.candidates
        removed = find_suppressed(box[0], score[0], label[0], valid[0], self.options.nms_threshold, kept)
        return list_neighbors(box, score, kept, removed)

    def _soft(self, detection: int) -> tuple[Neighbors, Neighbors]:
        """List whose scores it lowered, and who lowered its own."""
        box, score, label, valid, _ = self.candidates
        kept, order = int(self.kept[0, detection]), self.kept[0].tolist()
        decay = torch.exp(-(iou(box[0], box[0, kept]) ** 2) / SIGMA)
        touched = valid[0] & (label[0] == label[0, kept]) & (decay <= 1 - LEAST_DECAY)
        before = set(order[:detection])
        (indices,) = torch.where(touched)
        by_score = indices[score[0, indices].argsort(descending=True, stable=True)]
        is_above = torch.tensor([index in before for index in by_score.tolist()], dtype=torch.bool)
        above, below = by_score[is_above], by_score[~is_above & (by_score != kept).cpu()]
        return (
            list_neighbors(box, score, kept, below, decay[below]),
            list_neighbors(box, score, kept, above, decay[above]),
        )


def _number_anchors(candidates: DenseCandidates, output: DenseOutput, *, per_level: bool) -> Int[Tensor, " n"]:
    """Number the anchors of the candidates of the first image over all levels."""
    if not per_level:
        return candidates.anchors[0][0]
    numbers, first = [], 0
    for indices, anchors in zip(candidates.anchors, output.anchors, strict=True):
        numbers.append(indices[0] + first)
        first += len(anchors)
    return torch.cat(numbers)
