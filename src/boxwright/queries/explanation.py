"""Explanations of query heads: the query of a detection, from the encoder's cell through the layers of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.deformable_attention import DeformableDecoderLayer
from boxwright.layers.recording import place_in_pixels, split_weights
from boxwright.layers.transformer import TransformerDecoderLayer
from boxwright.mechanism import QueryLayer, QueryMechanism, TokenProposal
from boxwright.mechanism_levels import LevelCell
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.queries.decode import QueryOutput, RankedQueries
from boxwright.queries.decoder import Modules
from boxwright.queries.tokens import LevelProjections
from boxwright.recorded import Recorded


class LayerPredictions(NamedTuple):
    """Predictions after each layer: references (None where there are none), class scores in [0, 1], center boxes."""

    references: Sequence[Float[Tensor, "b q r"]] | None
    scores: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]


class SelectedTokens(NamedTuple):
    """Tokens that became queries: their indices, the scores that they were ranked by, and their center boxes."""

    tokens: Int[Tensor, "b q"]
    scores: Float[Tensor, "b q"]
    boxes_cxcywh_norm: Float[Tensor, "b q 4"]


class QueryDecoder(NamedTuple):
    """Modules of a query head that are recorded: the projections of its levels, and its decoder layers."""

    projections: LevelProjections
    layers: Modules

    def recorded_modules(self) -> list[nn.Module]:
        """List them with their attentions."""
        modules: list[nn.Module] = [self.projections, *self.layers]
        for layer in self.layers:
            assert isinstance(layer, DeformableDecoderLayer | TransformerDecoderLayer)
            modules += [layer.self_attention, layer.cross_attention]
        return modules

    def contents(self, recorded: Recorded) -> list[Float[Tensor, "b q d"]]:
        """Return the contents of the queries after each layer."""
        return [recorded.calls[layer][0].output for layer in self.layers]


class QueryExplainer:
    """Explanation of the detections of one image.

    Args:
        output: of the head.
        ranked: its detections.
        predictions: after each layer.
        decoder: of the head.
        recorded: its calls.
        selected: tokens that became the queries; None where queries are learned.
    """

    def __init__(
        self,
        output: QueryOutput,
        ranked: RankedQueries,
        predictions: LayerPredictions,
        decoder: QueryDecoder,
        recorded: Recorded,
        selected: SelectedTokens | None = None,
    ) -> None:
        self.ranked, self.predictions, self.selected = ranked, predictions, selected
        self.decoder, self.recorded = decoder, recorded
        self.sizes = output.valid_sizes[0].flip(-1).float()
        maps = recorded.calls[decoder.projections][0].output[0]
        self.shapes = [(int(x.shape[-2]), int(x.shape[-1])) for x in maps]

    def explain(self, detection: int) -> QueryMechanism:
        """Explain the detection of this index."""
        query, label = int(self.ranked.queries[0, detection]), int(self.ranked.labels[0, detection])
        best = self.predictions.scores[-1, 0].max(-1)
        num_queries = best.values.shape[0]
        detections = [-1] * num_queries
        for index, one in reversed(list(enumerate(self.ranked.queries[0].tolist()))):
            detections[one] = index
        return QueryMechanism(
            box=self._to_pixels(self.predictions.boxes_cxcywh_norm[-1, 0, query]),
            label=label,
            score=float(self.ranked.scores[0, detection]),
            query=query,
            proposal=self._proposal(query),
            layers=tuple(self._layer(index, query) for index in range(len(self.decoder.layers))),
            query_boxes=self._to_pixels(self.predictions.boxes_cxcywh_norm[-1, 0]),
            query_labels=best.indices.cpu(),
            query_scores=best.values.float().cpu(),
            query_detections=torch.tensor(detections),
        )

    def _proposal(self, query: int) -> TokenProposal | None:
        if self.selected is None:
            return None
        levels = self.decoder.projections
        return TokenProposal(
            cell=LevelCell.of_index(levels.levels, levels.strides, self.shapes, int(self.selected.tokens[0, query])),
            rank=query + 1,
            score=float(self.selected.scores[0, query]),
            box=self._to_pixels(self.selected.boxes_cxcywh_norm[0, query]),
        )

    def _layer(self, index: int, query: int) -> QueryLayer:
        layer, recorded = self.decoder.layers[index], self.recorded
        assert isinstance(layer, DeformableDecoderLayer | TransformerDecoderLayer)
        references, scores, boxes = self.predictions
        samples, maps = None, {}
        if isinstance(layer, DeformableDecoderLayer):
            sampled = recorded.samples[layer.cross_attention][0]
            samples = place_in_pixels(sampled, query, self.decoder.projections.levels, self.decoder.projections.strides)
        else:
            levels, weights = self.decoder.projections, recorded.attention[layer.cross_attention][0][0, query]
            maps = split_weights(weights, levels.levels, levels.strides, self.shapes)
        return QueryLayer(
            reference=None if references is None else self._to_pixels(references[index][0, query]),
            box=self._to_pixels(boxes[index, 0, query]),
            scores=scores[index, 0, query].float().cpu(),
            self_attention=recorded.attention[layer.self_attention][0][0, query].float().cpu(),
            samples=samples,
            maps=maps,
        )

    def _to_pixels(self, positions: Float[Tensor, "*n r"]) -> Float[Tensor, "*n r"]:
        """Convert points, or center boxes to corner boxes, from units of the image to pixels of the network input."""
        if positions.shape[-1] == 2:
            return (positions * self.sizes).float().cpu()
        return (cxcywh_to_xyxy(positions) * self.sizes.repeat(2)).float().cpu()
