"""DINO's head: contrastive denoising, selected boxes with learned contents, looking forward twice."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.ops.boxes import inverse_sigmoid
from boxwright.queries.class_losses import make_class_loss
from boxwright.queries.criterion import SetCriterion
from boxwright.queries.denoising import DenoisingQueries
from boxwright.queries.learned_queries import LearnedQueries
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import DecoderOptions, DenoisingOptions, QueryLossWeights, UnitedSupervisionOptions
from boxwright.structures import Spec

__all__ = ["DINO"]

_GIOU_EPS = 1e-6
"""The authors' constant: areas that GIoU divides by grow."""


class DINO(LearnedQueries):
    """Boxes of the best encoder tokens as queries, their contents learned; a deformable decoder refines them.

    All layers use the same class and box head, after the same norm; the encoder has heads of its own.

    Args:
        in_spec: the levels that come in, fine to coarse; those that are not ``hidden_dim`` wide are projected.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of 4 and of the decoder's ``num_heads``.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder.
        denoising: noised objects that the decoder is trained to recover.
        max_detections: most (query, class) pairs that are detected in an image.
        supervision: what the decoder's predictions learn from, and selected tokens.
        loss_weights: of class, L1 and GIoU loss, and of those of masks.
        masks: predict masks too.

    Source: Zhang et al., DINO, ICLR 2023. Checked against IDEA-Research/DINO faa8520: outputs, assignments, every loss
    term, gradients. Where the paper does not say it is as in the code: positions of queries come from boxes in units of
    the finest level's whole map, the next layer's references from contents before the norm, and denoising queries
    without object begin in the middle of the image. Differs in sharing the heads without copies in checkpoints, in
    running the encoder's box head on the selected tokens only, in an empty denoising group where no image has an
    object, and in groups whose number follows from the objects however few are to be recovered.
    """

    anchors_by_ratio = False
    margin = 1e-3

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 900,
        decoder: DecoderOptions = DecoderOptions(feedforward_dim=2048),
        denoising: DenoisingOptions = DenoisingOptions(),
        max_detections: int = 300,
        supervision: UnitedSupervisionOptions = UnitedSupervisionOptions(),
        loss_weights: QueryLossWeights = QueryLossWeights(),
        masks: bool = False,
    ) -> None:
        super().__init__(
            in_spec,
            num_classes,
            hidden_dim=hidden_dim,
            num_queries=num_queries,
            decoder=decoder,
            denoising=denoising,
            supervision=supervision,
            max_detections=max_detections,
            masks=masks,
        )
        matcher, loss = HungarianMatcher(giou_eps=_GIOU_EPS), make_class_loss(supervision.class_loss)
        self.criterion = self.encoder_criterion = SetCriterion(loss, matcher, loss_weights)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier for the contents too."""
        super().reset_parameters()
        for contents in (self.contents, *self.group_contents):
            nn.init.xavier_uniform_(cast(nn.Embedding, contents).weight)

    def begin_noised_references(self, denoising: DenoisingQueries) -> Float[Tensor, "b q 4"]:
        """Return the references of denoising queries: their boxes, or the middle of the image without object."""
        logits = inverse_sigmoid(denoising.boxes_cxcywh_norm, self.margin)
        return logits.masked_fill((denoising.labels == self.num_classes)[..., None], 0.0).sigmoid()
