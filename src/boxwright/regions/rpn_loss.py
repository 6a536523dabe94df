"""The losses of a region proposal network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.box_deltas import encode_deltas
from boxwright.ops.box_matching import gather_matches, match_by_iou
from boxwright.ops.boxes import at_least_float32
from boxwright.regions.box_loss import SMOOTH_L1_BETA
from boxwright.regions.rpn import RPNOutput
from boxwright.regions.sampling import sample_balanced
from boxwright.structures import LossTotals, Targets


class RPNLoss:
    """Cross entropy of "object" over sampled anchors, smooth L1 over those of them that have an object.

    Both are divided by the anchors sampled in an image, and averages over images.

    Args:
        positive_iou: least IoU of an anchor with its object; each object also has the anchors that overlap it most.
        negative_iou: IoU below which an anchor is background.
        num_samples: anchors sampled in an image.
        positive_share: most of them with an object, as a share.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.2. Checked against torchvision 0.29.2's
    RegionProposalNetwork, which divides by the anchors sampled in the batch: the same number wherever images have
    enough anchors.
    """

    def __init__(
        self,
        *,
        positive_iou: float = 0.7,
        negative_iou: float = 0.3,
        num_samples: int = 256,
        positive_share: float = 0.5,
    ) -> None:
        self.positive_iou, self.negative_iou = positive_iou, negative_iou
        self.num_samples, self.positive_share = num_samples, positive_share

    def __call__(
        self,
        output: RPNOutput,
        targets: Sequence[Targets],
        totals: LossTotals,
    ) -> dict[str, Float[Tensor, ""]]:
        """``objectness`` and ``rpn_box``.

        Args:
            output: what is said of the anchors.
            targets: one per image.
            totals: of the optimizer step.
        """
        logits, deltas, anchors = torch.cat(output.logits, 1), torch.cat(output.deltas, 1), torch.cat(output.anchors)
        matched = torch.stack([self.match(anchors, t.boxes.to(anchors.dtype)) for t in targets])
        samples = [sample_balanced(of, self.num_samples, self.positive_share) for of in matched]
        with torch.autocast(anchors.device.type, enabled=False):
            return self.of_samples(
                at_least_float32(logits), at_least_float32(deltas), anchors, matched, samples, targets, totals
            )

    def match(self, anchors: Float[Tensor, "n 4"], boxes: Float[Tensor, "o 4"]) -> Int[Tensor, " n"]:
        """The object of each anchor, or that it is background or ignored."""
        return match_by_iou(anchors, boxes, positive=self.positive_iou, negative=self.negative_iou, low_quality="ties")

    def of_samples(
        self,
        logits: Float[Tensor, "b n"],
        deltas: Float[Tensor, "b n 4"],
        anchors: Float[Tensor, "n 4"],
        matched: Int[Tensor, "b n"],
        samples: Sequence[Int[Tensor, " _s"]],
        targets: Sequence[Targets],
        totals: LossTotals,
    ) -> dict[str, Float[Tensor, ""]]:
        """The same with given samples of each image."""
        weights = torch.zeros_like(logits)
        for own, chosen in zip(weights, samples, strict=True):
            own[chosen] = 1 / (max(1, len(chosen)) * totals.images_per_process)
        entropy = F.binary_cross_entropy_with_logits(logits, (matched >= 0).to(logits.dtype), reduction="none")
        image, place, boxes, _ = gather_matches(matched, targets)
        wanted = encode_deltas(boxes.to(anchors.dtype), anchors[place])
        distance = F.smooth_l1_loss(deltas[image, place], wanted, reduction="none", beta=SMOOTH_L1_BETA).sum(-1)
        return {"objectness": (entropy * weights).sum(), "rpn_box": (distance * weights[image, place]).sum()}
