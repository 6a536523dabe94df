"""Explanations of two-stage heads: the proposal of a detection, and its neighbors before both NMS."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from boxwright.layers.level_cells import LevelCells, list_neighbors
from boxwright.mechanism import Neighbors, RegionProposal
from boxwright.ops.nms import find_suppressed
from boxwright.regions.decode import RegionPrediction, decode_candidates, rank_regions, suppress_regions
from boxwright.regions.options import DetectionOptions, RPNOptions
from boxwright.regions.proposals import RPNOutput, select_proposals


class ProposalOrigins:
    """Proposals of one image, and the anchors that they were predicted from.

    Args:
        rpn: predictions of every anchor.
        box_limits: (height, width) that boxes are cut to.
        options: of the selection.
    """

    def __init__(self, rpn: RPNOutput, box_limits: Float[Tensor, "#b 2"], options: RPNOptions) -> None:
        self.rpn, self.options = rpn, options
        self.proposals, self.candidates, self.order = select_proposals(
            rpn,
            box_limits,
            pre_nms_top_k=options.pre_nms_top_k[1],
            post_nms_top_k=options.post_nms_top_k[1],
            nms_threshold=options.nms_threshold,
        )

    def explain(self, region: int, cells: LevelCells) -> RegionProposal:
        """Explain the proposal of this index."""
        kept = int(self.order[0, region])
        boxes, scores, levels, valid, anchors = self.candidates
        level = int(levels[0, kept])
        within = kept - sum(one.shape[1] for one in anchors[:level])
        index = int(anchors[level][0, within])
        num_anchors = len(self.rpn.anchors[level]) // (cells.shapes[level][0] * cells.shapes[level][1])
        before = sum(len(one) for one in self.rpn.anchors[:level])
        removed = find_suppressed(boxes[0], scores[0], levels[0], valid[0], self.options.nms_threshold, kept)
        return RegionProposal(
            anchor=cells.anchor(before + index, num_anchors, self.rpn.anchors[level][index]),
            rank=region + 1,
            objectness=float(scores[0, kept]),
            box=boxes[0, kept].float().cpu(),
            neighbors=list_neighbors(boxes, scores, kept, removed),
        )


class RankedPairs:
    """(region, class) pairs of one image, and the detections among them.

    Args:
        predicted: of all regions.
        box_limits: (height, width) that boxes are cut to.
        options: limits of detections.
    """

    def __init__(
        self, predicted: RegionPrediction, box_limits: Float[Tensor, "#b 2"], options: DetectionOptions
    ) -> None:
        scores, boxes = decode_candidates(predicted, box_limits)
        self.options, self.num_classes = options, scores.shape[2]
        self.candidates = rank_regions(scores, boxes, options)
        self.order, _ = suppress_regions(self.candidates, options, self.num_classes)

    def region_and_label(self, detection: int) -> tuple[int, int]:
        """Return the region of a detection, and its class."""
        pair = int(self.candidates.pairs[0, self.order[0, detection]])
        return pair // self.num_classes, pair % self.num_classes

    def box(self, detection: int) -> Float[Tensor, " 4"]:
        """Return the corner box of a detection, in pixels of the network input."""
        return self.candidates.boxes[0, self.order[0, detection]].float().cpu()

    def score(self, detection: int) -> float:
        """Return the score of a detection, in [0, 1]."""
        return float(self.candidates.scores[0, self.order[0, detection]])

    def rank(self, detection: int) -> int:
        """Return the rank of a detection before NMS, from 1."""
        return 1 + int(self.order[0, detection])

    def neighbors(self, detection: int) -> Neighbors:
        """List the pairs that NMS removed in favor of a detection."""
        kept, (boxes, scores, labels, valid, _) = int(self.order[0, detection]), self.candidates
        removed = find_suppressed(boxes[0], scores[0], labels[0], valid[0], self.options.nms_threshold, kept)
        return list_neighbors(boxes, scores, kept, removed)
