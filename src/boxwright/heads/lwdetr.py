"""LW-DETR's head, which RF-DETR has too: groups of queries, which sample around boxes that no layer moves."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.ops.box_deltas import move_boxes
from boxwright.queries.class_losses import make_class_loss
from boxwright.queries.criterion import SetCriterion
from boxwright.queries.encoder_queries import DecoderStart
from boxwright.queries.groups import join_queries
from boxwright.queries.learned_queries import LearnedQueries, look_up
from boxwright.queries.mask_branch import MaskFactors
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import QueryLossWeights, SamplingDecoderOptions, UnitedSupervisionOptions
from boxwright.structures import Spec

__all__ = ["LWDETR"]


class LWDETR(LearnedQueries):
    """Boxes of the best encoder tokens, moved by what is learned for each query, as queries with learned contents.

    Every layer samples around these boxes, and predicts how far the object is from them: shifts in sides of the box,
    and logarithms of the sides' growth. All layers use the same class and box head, after the same norm; the encoder
    has heads of its own for each group of queries.

    Args:
        in_spec: the levels that come in, fine to coarse; those that are not ``hidden_dim`` wide are projected.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of 4 and of the decoder's ``num_heads``.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder.
        max_detections: most (query, class) pairs that are detected in an image.
        supervision: what the decoder's predictions learn from, and selected tokens.
        loss_weights: of class, L1 and GIoU loss, and of those of masks.
        masks: predict masks too; selected tokens learn from masks of their own, before any layer.

    Source: Chen et al., LW-DETR, 2024; Robinson et al., RF-DETR, 2025. Checked against roboflow/rf-detr 35ac6ab, with
    its options ``bbox_reparam`` and ``lite_refpoint_refine``, as published: outputs, assignments, every loss term,
    gradients. Differs on images with fewer tokens than queries, where there are only as many queries as tokens: theirs
    fill up with what is learned alone, and mix their groups; and in running the encoder's box head on the selected
    tokens only.
    """

    anchors_by_ratio = False
    boxes_are_relative = True
    refinement = "none"

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 300,
        decoder: SamplingDecoderOptions = SamplingDecoderOptions(
            num_layers=3, num_sampling_heads=16, num_points=2, feedforward_dim=2048
        ),
        max_detections: int = 300,
        supervision: UnitedSupervisionOptions = UnitedSupervisionOptions(class_loss="iabce", num_groups=13),
        loss_weights: QueryLossWeights = QueryLossWeights(),
        masks: bool = False,
    ) -> None:
        super().__init__(
            in_spec,
            num_classes,
            hidden_dim=hidden_dim,
            num_queries=num_queries,
            decoder=decoder,
            denoising=None,
            supervision=supervision,
            max_detections=max_detections,
            masks=masks,
        )
        loss = make_class_loss(supervision.class_loss)
        self.criterion = self.encoder_criterion = SetCriterion(loss, HungarianMatcher(), loss_weights)
        self.moves = nn.Embedding(num_queries, 4)
        self.group_moves = nn.ModuleList(nn.Embedding(num_queries, 4) for _ in range(supervision.num_groups - 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: the selected boxes are where they are."""
        super().reset_parameters()
        for moves in (self.moves, *self.group_moves):
            nn.init.zeros_(cast(nn.Embedding, moves).weight)

    def begin_references(self, selected: Float[Tensor, "b q 4"], group: int) -> Float[Tensor, "b q 4"]:
        """Move the boxes of the selected tokens, as constants, by what is learned for the queries of a group."""
        boxes = selected.detach()
        return move_boxes(boxes, look_up(self.moves if group == 0 else self.group_moves[group - 1], boxes))

    def predict_selected_masks(self, start: DecoderStart) -> MaskFactors | None:
        """Predict masks of the selected tokens of all groups, for training; None without masks."""
        if self.masks is None:
            return None
        tokens = join_queries([selection.content for selection in start.selections])
        return self.masks.predict_from_tokens(start.finest, tokens).fold(start.num_groups)
