"""The common part of heads whose queries begin as the encoder's boxes, with learned contents."""

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
from boxwright.queries.decoder import LayerHeads, build_decoder_layers, reset_predictors, spread_over_levels
from boxwright.queries.groups import GroupEncoder
from boxwright.queries.options import DecoderOptions, DenoisingOptions, UnitedSupervisionOptions
from boxwright.queries.refined_queries import RefinedQueries
from boxwright.queries.selection import Selection
from boxwright.structures import Spec


class LearnedQueries(RefinedQueries):
    """Boxes of the best encoder tokens as queries, their contents learned; a base class.

    All layers use the same class and box head, after the same norm; the encoder has heads of its own, which begin as
    the decoder's. Positions of queries are sines of their boxes through a small network.

    Args:
        in_spec: the levels that come in, fine to coarse; those that are not ``hidden_dim`` wide are projected.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of 4 and of the decoder's ``num_heads``.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder.
        denoising: noised objects that the decoder is trained to recover; a head with None has no such part.
        supervision: what predictions learn from; each group of queries has contents of its own.
        max_detections: most (query, class) pairs that are detected in an image.
        masks: predict masks too.
    """

    margin = 1e-5
    """Distance of boxes from 0 and 1 where they go back through the sigmoid."""

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int,
        num_queries: int,
        decoder: DecoderOptions,
        denoising: DenoisingOptions | None,
        supervision: UnitedSupervisionOptions,
        max_detections: int,
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
            project_every_level=False,
        )
        check_hidden_dim(hidden_dim, decoder.num_heads, sine=True)
        self.contents = nn.Embedding(num_queries, hidden_dim)
        others = range(supervision.num_groups - 1)
        self.group_contents = nn.ModuleList(nn.Embedding(num_queries, hidden_dim) for _ in others)
        self.query_positions = MLP(2 * hidden_dim, hidden_dim, hidden_dim, 2, activation=decoder.activation)
        self.layers = build_decoder_layers(decoder, hidden_dim, len(self.projections.levels))
        self.norm = nn.LayerNorm(hidden_dim)
        self.classes = nn.ModuleList([nn.Linear(hidden_dim, num_classes)])
        self.boxes = nn.ModuleList([MLP(hidden_dim, hidden_dim, 4, 3, activation=decoder.activation)])

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier for the transformer; the encoder's heads begin as the decoder's."""
        reset_transformer(self.layers)
        self.reset_selection()
        reset_predictors(self.classes, self.boxes)
        encoders = [cast(GroupEncoder, encoder).heads() for encoder in self.group_encoders]
        for _, classes, boxes in ((None, self.encoder_classes, self.encoder_boxes), *encoders):
            classes.load_state_dict(self.classes[0].state_dict())
            boxes.load_state_dict(self.boxes[0].state_dict())

    def layer_heads(self) -> LayerHeads:
        """Return the heads that predict after each layer."""
        return LayerHeads(self.classes, self.boxes, self.norm, self.margin, self.boxes_are_relative)

    def begin_contents(self, selection: Selection, group: int) -> Float[Tensor, "b q d"]:
        """Look up the learned contents of a group, the same for every image; the best token has the first."""
        return look_up(self.contents if group == 0 else self.group_contents[group - 1], selection.content)

    def encode_on_maps(self, reference: Float[Tensor, "b q 4"], tokens: LevelTokens) -> Float[Tensor, "b q d"]:
        """Encode references, in units of the finest level's whole map, as positions of queries: y, x, w, h."""
        x, y, w, h = spread_over_levels(reference, tokens)[:, :, 0].unbind(-1)
        encoded = encode_box_sine(torch.stack((y, x, w, h), -1), self.contents.embedding_dim // 2)
        return cast(Tensor, self.query_positions(cast_to_weights(encoded, self.query_positions)))


def look_up(learned: nn.Module, like: Float[Tensor, "b q d"]) -> Float[Tensor, "b q _d"]:
    """Look up what is learned for each query, the same for every image.

    Args:
        learned: an embedding of the queries.
        like: of as many images and queries, and of the type of the result.
    """
    # Looked up, because a slice of a parameter asks for gradients even where there are none (torch 2.15).
    rows: Tensor = learned(torch.arange(like.shape[1], device=like.device))
    return rows.to(like.dtype).repeat(like.shape[0], 1, 1)
