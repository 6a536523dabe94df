"""DINO's head: contrastive denoising, selected boxes with learned contents, looking forward twice."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.deformable_transformer import encode_box_sine, reset_transformer
from boxwright.layers.mlp import MLP
from boxwright.layers.option_checks import check_hidden_dim
from boxwright.layers.predictions import cast_to_weights
from boxwright.layers.tokens import LevelTokens
from boxwright.ops.boxes import inverse_sigmoid
from boxwright.queries.class_losses import make_class_loss
from boxwright.queries.criterion import SetCriterion
from boxwright.queries.decoder import LayerHeads, build_decoder_layers, reset_predictors, spread_over_levels
from boxwright.queries.denoising import DenoisingQueries
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import DecoderOptions, DenoisingOptions, QueryLossWeights, UnitedSupervisionOptions
from boxwright.queries.refined_queries import RefinedQueries
from boxwright.queries.selection import Selection
from boxwright.structures import Spec

__all__ = ["DINO"]

# The authors' constants: boxes keep from 0 and 1 before the inverse of the sigmoid; areas that GIoU divides by grow.
_MARGIN, _GIOU_EPS = 1e-3, 1e-6


class DINO(RefinedQueries):
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
        loss_weights: of class, L1 and GIoU loss.

    Source: Zhang et al., DINO, ICLR 2023. Checked against IDEA-Research/DINO faa8520: outputs, assignments, every loss
    term, gradients. Where the paper does not say it is as in the code: positions of queries come from boxes in units of
    the finest level's whole map, the next layer's references from contents before the norm, and denoising queries
    without object begin in the middle of the image. Differs in sharing the heads without copies in checkpoints, in
    running the encoder's box head on the selected tokens only, in an empty denoising group where no image has an
    object, and in groups whose number follows from the objects however few are to be recovered.
    """

    anchors_by_ratio = False

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
    ) -> None:
        super().__init__(
            in_spec,
            num_classes,
            hidden_dim=hidden_dim,
            num_queries=num_queries,
            decoder=decoder,
            denoising=denoising,
            max_detections=max_detections,
            project_every_level=False,
        )
        check_hidden_dim(hidden_dim, decoder.num_heads, sine=True)
        matcher, loss = HungarianMatcher(giou_eps=_GIOU_EPS), make_class_loss(supervision.class_loss)
        self.divides_by_assigned = supervision.united_matches
        self.criterion = self.encoder_criterion = SetCriterion(loss, matcher, loss_weights)
        self.contents = nn.Embedding(num_queries, hidden_dim)
        self.query_positions = MLP(2 * hidden_dim, hidden_dim, hidden_dim, 2, activation=decoder.activation)
        self.layers = build_decoder_layers(decoder, hidden_dim, len(self.projections.levels))
        self.norm = nn.LayerNorm(hidden_dim)
        self.classes = nn.ModuleList([nn.Linear(hidden_dim, num_classes)])
        self.boxes = nn.ModuleList([MLP(hidden_dim, hidden_dim, 4, 3, activation=decoder.activation)])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier for the transformer; the encoder's heads begin as the decoder's."""
        reset_transformer(self.layers)
        self.reset_selection()
        nn.init.xavier_uniform_(self.contents.weight)
        reset_predictors(self.classes, self.boxes)
        self.encoder_classes.load_state_dict(self.classes[0].state_dict())
        self.encoder_boxes.load_state_dict(self.boxes[0].state_dict())

    def layer_heads(self) -> LayerHeads:
        """Return the heads that predict after each layer."""
        return LayerHeads(self.classes, self.boxes, self.norm, _MARGIN)

    def begin_contents(self, selection: Selection) -> Float[Tensor, "b q d"]:
        """Look up the learned contents, the same for every image; the best token has the first."""
        batch, num_queries, _ = selection.content.shape
        # Looked up, because a slice of a parameter asks for gradients even where there are none (torch 2.15).
        contents: Tensor = self.contents(torch.arange(num_queries, device=selection.content.device))
        return contents.to(selection.content.dtype).repeat(batch, 1, 1)

    def invert_noised_boxes(self, denoising: DenoisingQueries) -> Float[Tensor, "b q 4"]:
        """Invert the sigmoid of the boxes of denoising queries; those without object are the middle of the image."""
        logits = inverse_sigmoid(denoising.boxes_cxcywh_norm, _MARGIN)
        return logits.masked_fill((denoising.labels == self.num_classes)[..., None], 0.0)

    def encode_on_maps(self, reference: Float[Tensor, "b q 4"], tokens: LevelTokens) -> Float[Tensor, "b q d"]:
        """Encode references, in units of the finest level's whole map, as positions of queries: y, x, w, h."""
        x, y, w, h = spread_over_levels(reference, tokens)[:, :, 0].unbind(-1)
        encoded = encode_box_sine(torch.stack((y, x, w, h), -1), self.contents.embedding_dim // 2)
        return cast(Tensor, self.query_positions(cast_to_weights(encoded, self.query_positions)))
