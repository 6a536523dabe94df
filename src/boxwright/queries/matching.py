"""Assignment of predictions to objects, one to one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, generalized_iou, iou
from boxwright.ops.finite import NotFiniteError
from boxwright.queries.class_losses import ClassCost, FocalCost
from boxwright.queries.mask_branch import MaskFactors
from boxwright.queries.mask_points import MaskTargets, compute_mask_costs

LATE_POWER = 4
"""Of the IoU in the cost of the last part of training."""


class NormalizedTargets(NamedTuple):
    """The objects of one image in the units that query decoders predict.

    ``labels`` are 0..C-1; ``boxes_cxcywh_norm`` are center boxes relative to the image inside its padding, in
    [0, 1]. ``masks`` are None where no queries are trained on them.
    """

    labels: Int[Tensor, " n"]
    boxes_cxcywh_norm: Float[Tensor, "n 4"]
    masks: MaskTargets | None = None


class Matches(NamedTuple):
    """Pairs of prediction and object, over several layers of predictions and a batch.

    Entry ``i`` pairs query ``query[i]`` of image ``image[i]`` in layer ``layer[i]`` with object ``object[i]``,
    which counts the objects of the whole batch in order.
    """

    layer: Int[Tensor, " s"]
    image: Int[Tensor, " s"]
    query: Int[Tensor, " s"]
    object: Int[Tensor, " s"]

    def repeat(self, num_layers: int) -> Matches:
        """Repeat the pairs of one layer in each of ``num_layers`` layers."""
        times = self.image.new_tensor(range(num_layers)).repeat_interleave(len(self.image))
        return Matches(times, *(index.repeat(num_layers) for index in self[1:]))

    def select(self, layers: slice) -> Matches:
        """Select the pairs of a slice of layers, which are counted from its start."""
        first, last = layers.start or 0, layers.stop
        if first == 0 and last is None:
            return self
        chosen = self.layer >= first if last is None else (self.layer >= first) & (self.layer < last)
        return Matches(self.layer[chosen] - first, *(index[chosen] for index in self[1:]))


class HungarianMatcher:
    """Assignment of least total cost.

    cost = class_weight * class_cost(logits, label) + l1_weight * |box - object|_1 - giou_weight * GIoU
    or, where ``is_late`` is set, as DEIMv2 does in the last part of training, cost = -score * IoU^4;
    and, of queries with masks, + mask_weight * cross entropy + dice_weight * dice loss of the masks at points

    Args:
        class_cost: the class term; ``FocalCost`` where None.
        class_weight: of the class term.
        l1_weight: of the L1 distance of normalized center boxes.
        giou_weight: of the generalized IoU.
        mask_weight: of the cross entropy of masks.
        dice_weight: of the dice loss of masks.
        giou_eps: see ``generalized_iou``.

    Source: Carion et al., DETR, ECCV 2020, equation 1; Zhu et al., Deformable DETR, ICLR 2021 (focal cost). Assignments
    are those of transformers, facebookresearch/detr 29901c5, fundamentalvision/Deformable-DETR 11169a6 and
    lyuwenyu/RT-DETR 068dfde; late, those of Intellindust-AI-Lab/DEIMv2 0fff8d4. Differs in computing costs image by
    image for all layers at once (the originals compare each image's queries with the whole batch's objects) and in one
    copy to the CPU.
    """

    def __init__(
        self,
        *,
        class_cost: ClassCost | None = None,
        class_weight: float = 2.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        giou_eps: float = 0.0,
    ) -> None:
        self.class_cost: ClassCost = class_cost or FocalCost()
        self.class_weight, self.l1_weight, self.giou_weight = class_weight, l1_weight, giou_weight
        self.mask_weight, self.dice_weight, self.giou_eps = mask_weight, dice_weight, giou_eps
        self.is_late = False

    @torch.no_grad()
    def __call__(
        self,
        logits: Float[Tensor, "l b q k"],
        boxes_cxcywh_norm: Float[Tensor, "l b q 4"],
        targets: Sequence[NormalizedTargets],
        masks: MaskFactors | None = None,
    ) -> Matches:
        """Match every layer of predictions with the same objects.

        Args:
            logits: of every layer.
            boxes_cxcywh_norm: of every layer.
            targets: one per image.
            masks: of the first layers, which may be fewer.

        Raises:
            NotFiniteError: a prediction is not finite.
        """
        num_layers, _, num_queries, _ = logits.shape
        sizes = [len(t.labels) for t in targets]
        if max(sizes, default=0) > num_queries:
            warnings.warn(
                f"an image holds {max(sizes)} objects and the detector has {num_queries} queries: "
                "the objects beyond are never learned; raise num_queries",
                stacklevel=2,
            )
        costs = []
        for i, target in enumerate(targets):
            cost = self.cost(logits[:, i], boxes_cxcywh_norm[:, i], target)
            if masks is not None and target.masks is not None:
                entropy, dice = compute_mask_costs(masks, i, target.masks)
                cost[: len(entropy)] += self.mask_weight * entropy + self.dice_weight * dice
            costs.append(cost.flatten())
        flat = torch.cat(costs).cpu()
        if not flat.isfinite().all():
            raise NotFiniteError("predictions are not finite any more: training has diverged; lower the learning rate")

        pairs: list[tuple[int, int, Tensor, Tensor]] = []
        first = 0
        for image, (n, cost) in enumerate(zip(sizes, flat.split([c.numel() for c in costs]), strict=True)):
            for layer, matrix in enumerate(cost.view(num_layers, num_queries, n).numpy()):
                queries, objects = linear_sum_assignment(matrix)
                pairs.append((layer, image, torch.from_numpy(queries), torch.from_numpy(objects) + first))
            first += n
        return _collect(pairs, logits.device)

    def cost(
        self,
        logits: Float[Tensor, "l q k"],
        boxes_cxcywh_norm: Float[Tensor, "l q 4"],
        target: NormalizedTargets,
    ) -> Float[Tensor, "l q n"]:
        """Compute the cost matrices of one image."""
        if self.is_late:
            scores = at_least_float32(logits).sigmoid()[..., target.labels]
            corners = cxcywh_to_xyxy(at_least_float32(boxes_cxcywh_norm))[:, :, None]
            return -scores * iou(corners, cxcywh_to_xyxy(target.boxes_cxcywh_norm)) ** LATE_POWER
        class_cost = self.class_cost(at_least_float32(logits), target.labels)
        boxes = at_least_float32(boxes_cxcywh_norm)
        l1 = torch.cdist(boxes, target.boxes_cxcywh_norm.to(boxes.dtype).expand(len(boxes), -1, -1), p=1)
        corners, objects = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target.boxes_cxcywh_norm)
        giou = generalized_iou(corners[:, :, None], objects, eps=self.giou_eps)
        return self.l1_weight * l1 + self.class_weight * class_cost - self.giou_weight * giou


def _collect(pairs: Sequence[tuple[int, int, Tensor, Tensor]], device: torch.device) -> Matches:
    counts = torch.tensor([len(queries) for _, _, queries, _ in pairs])
    rows = torch.stack(
        (
            torch.tensor([layer for layer, _, _, _ in pairs]).repeat_interleave(counts),
            torch.tensor([image for _, image, _, _ in pairs]).repeat_interleave(counts),
            torch.cat([queries for _, _, queries, _ in pairs]),
            torch.cat([objects for _, _, _, objects in pairs]),
        )
    )
    return Matches(*rows.to(device))
