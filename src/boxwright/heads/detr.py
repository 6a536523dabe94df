"""DETR's head: learned queries, matched one to one with the objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.mlp import MLP
from boxwright.layers.option_checks import check_counts, check_fractions, check_hidden_dim
from boxwright.layers.positions import LevelPositions, Positions, PositionsAt
from boxwright.layers.predictions import cast_to_weights, run_in_full_precision
from boxwright.layers.tokens import flatten_maps, flatten_mask
from boxwright.layers.transformer import TransformerDecoderLayer, xavier_matrices
from boxwright.mechanism import QueryMechanism
from boxwright.ops.boxes import at_least_float32
from boxwright.ops.nms import nms_keep_mask
from boxwright.queries.class_losses import CrossEntropyLoss, SoftmaxCost
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms, normalize_targets
from boxwright.queries.decode import RankedQueries, decode_best_classes, rank_queries
from boxwright.queries.explanation import LayerPredictions, QueryDecoder, QueryExplainer
from boxwright.queries.mask_branch import MaskFactors, build_mask_branch
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import SoftmaxLossWeights, TransformerDecoderOptions
from boxwright.queries.tokens import LevelProjections
from boxwright.recorded import Recorded
from boxwright.structures import ClassRows, Decoded, Features, LossTotals, ObjectLimit, Spec, Targets

__all__ = ["DETR"]


class DETROutput(NamedTuple):
    """Predictions of the decoder layers: every layer with targets, the last one without.

    The last logit of a query stands for "no object". Boxes are center boxes relative to the image inside its padding,
    in [0, 1]; ``valid_sizes`` are (height, width) of these images. ``masks`` are None where the head has none.
    """

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]
    valid_sizes: Float[Tensor, "#b 2"]
    masks: MaskFactors | None = None


class DETR(nn.Module):
    """Attention of learned queries to each other and to all cells of all levels, layer by layer.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of the decoder's ``num_heads``, and of 4 for sine positions.
            Levels of another width are projected to it.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder.
        positions: of the cells: ``sine``, ``learned`` (up to 50 cells along each side) or ``none``.
        positions_at: ``attention`` adds them to the keys alone, ``input`` to the values too.
        query_positions_at: the learned queries are added to the queries and keys of every attention (``attention``)
            and contents start from zero, or they are the initial contents (``input``).
        auxiliary_losses: train the layers before the last with the same losses.
        loss_weights: of cross entropy, L1 and GIoU loss, and of those of masks.
        masks: predict masks too.
        nms_threshold: IoU above which the worse one of two detections of a class goes, in [0, 1]; None goes without, as
            DETR is made for. The paper's figure 4 asks what it brings after each decoder layer.

    Source: Carion et al., DETR, ECCV 2020, section 3, appendix A.3, table 3 and figure 4. Checked against
    facebookresearch/detr 29901c5 and transformers (outputs, assignments, losses, gradients). Differs in taking several
    levels; in learned positions of its own, where the original shares one table with the encoder; in a cross entropy
    averaged over the whole optimizer step. Positions at the input are the paper's; the original's code has none.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 100,
        decoder: TransformerDecoderOptions = TransformerDecoderOptions(),
        positions: Positions = "sine",
        positions_at: PositionsAt = "attention",
        query_positions_at: PositionsAt = "attention",
        auxiliary_losses: bool = True,
        loss_weights: SoftmaxLossWeights = SoftmaxLossWeights(),
        masks: bool = False,
        nms_threshold: float | None = None,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "num_queries": num_queries})
        check_hidden_dim(hidden_dim, decoder.num_heads)
        check_fractions({"nms_threshold": nms_threshold or 0.0})
        self.num_classes, self.num_queries, self.auxiliary_losses = num_classes, num_queries, auxiliary_losses
        self.eval_layers, self.nms_threshold = decoder.predicting_layers, nms_threshold
        self.positions_at, self.query_positions_at = positions_at, query_positions_at
        matcher = HungarianMatcher(class_cost=SoftmaxCost(), class_weight=1.0)
        self.criterion = SetCriterion(CrossEntropyLoss(loss_weights.no_object_weight), matcher, loss_weights)
        self.projections = LevelProjections(in_spec, hidden_dim, lambda width, dim: nn.Conv2d(width, dim, 1))
        self.positions = LevelPositions(positions, hidden_dim)
        self.queries = nn.Embedding(num_queries, hidden_dim)
        self.layers = nn.ModuleList(
            TransformerDecoderLayer(
                hidden_dim,
                decoder.num_heads,
                decoder.feedforward_dim,
                dropout=decoder.dropout,
                pre_norm=decoder.pre_norm,
            )
            for _ in range(decoder.num_layers)
        )
        self.norm = nn.LayerNorm(hidden_dim)
        self.classes = nn.Linear(hidden_dim, num_classes + 1)
        self.boxes = MLP(hidden_dim, hidden_dim, 4, 3)
        self.masks, self.mask_region = build_mask_branch(masks, hidden_dim, decoder.num_layers, self.projections)
        xavier_matrices(self.layers)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> DETROutput:
        """Predict; with ``targets`` from every layer that is trained."""
        maps, valid_sizes = self.projections(features, padding_mask, valid_sizes)
        memory, shapes = flatten_maps(maps)
        positions = self.positions(shapes, padding_mask, memory.device)
        keys = memory if positions is None else memory + cast_to_weights(positions, self.layers)
        num_layers = self.eval_layers if targets is None else len(self.layers)
        values = keys if self.positions_at == "input" else memory
        contents = self._decode(keys, values, flatten_mask(padding_mask, shapes), num_layers=num_layers)
        contents = contents if targets is not None and self.auxiliary_losses else contents[-1:]
        decoded = self.norm(torch.stack(contents))
        masks = None if self.masks is None else self.masks(maps[0], decoded, num_layers)
        return DETROutput(*self._predict(decoded), valid_sizes, masks)

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layers with a row for each class."""
        return {"classes": ClassRows(others=1, softmax=True)}

    def loss(
        self, output: DETROutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted loss terms of every decoder layer."""
        objects = normalize_targets(targets, with_masks=self.masks is not None)
        totals = totals or LossTotals.of(targets)
        losses = self.criterion(output.logits, output.boxes_cxcywh_norm, objects, totals, masks=output.masks)
        return name_terms(losses, layer_suffixes(len(output.logits)))

    def decode(self, output: DETROutput) -> Decoded:
        """Decode each query's best class, best first; with a threshold, those that no better one suppresses."""
        predictions = output.logits[-1], output.boxes_cxcywh_norm[-1], output.valid_sizes
        decoded = decode_best_classes(*predictions, output.masks)
        if self.nms_threshold is None:
            return decoded
        kept = nms_keep_mask(*decoded[:4], self.nms_threshold, self.num_classes)
        return decoded._replace(valid=kept)

    def object_limits(self) -> Sequence[ObjectLimit]:
        """List the one option that limits the number of detections."""
        return [ObjectLimit("num_queries", self.num_queries)]

    def raise_limits(self, max_detections: int) -> None:
        """Do nothing: the number of queries is fixed by the weights."""

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain`` needs."""
        return self._decoder().recorded_modules()

    def explain(self, output: DETROutput, recorded: Recorded, detection: int) -> QueryMechanism:
        """Explain a detection by its learned query and the decoder's layers."""
        decoder = self._decoder()
        with torch.no_grad():
            logits, boxes = self._predict(self.norm(torch.stack(decoder.contents(recorded))))
        predictions = LayerPredictions(None, at_least_float32(logits).softmax(-1)[..., :-1], boxes)
        ranked = rank_queries(output.logits[-1])
        if self.nms_threshold is not None:
            kept = self.decode(output).valid[0]
            ranked, detection = RankedQueries(*(one[:, kept] for one in ranked)), int(kept[:detection].sum())
        return QueryExplainer(output, ranked, predictions, decoder, recorded).explain(detection)

    def _decoder(self) -> QueryDecoder:
        return QueryDecoder(self.projections, self.layers[: self.eval_layers])

    def _predict(self, decoded: Float[Tensor, "l b q d"]) -> tuple[Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        boxes = run_in_full_precision(self.boxes, decoded).sigmoid()
        return self.classes(decoded), boxes

    def _decode(
        self,
        keys: Float[Tensor, "b t d"],
        memory: Float[Tensor, "b t d"],
        padding: Bool[Tensor, "b t"] | None,
        *,
        num_layers: int,
    ) -> list[Float[Tensor, "b q d"]]:
        learned, positions = self.queries.weight, None
        if self.query_positions_at == "attention":
            contents, positions = torch.zeros_like(learned.expand(memory.shape[0], -1, -1)), learned
        else:
            # A copy: what counts operations cannot follow a view of a parameter into a layer.
            contents = learned.repeat(memory.shape[0], 1, 1)
        decoded = []
        for layer in self.layers[:num_layers]:
            contents = layer(contents, positions, keys, memory, padding)
            decoded.append(contents)
        return decoded
