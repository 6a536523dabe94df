"""RT-DETR's head: query selection, deformable decoder with iterative refinement, denoising."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.mlp import MLP
from boxwright.layers.option_checks import check_counts, check_hidden_dim
from boxwright.layers.predictions import cast_to_weights
from boxwright.layers.tokens import LevelTokens, flatten_levels
from boxwright.mechanism import QueryMechanism
from boxwright.ops.boxes import at_least_float32, inverse_sigmoid
from boxwright.queries.class_losses import FocalLoss, VarifocalLoss
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms, normalize_targets
from boxwright.queries.decode import PairDetections, rank_pairs
from boxwright.queries.decoder import build_decoder_layers, decode_queries, predict_layers, reset_predictors
from boxwright.queries.denoising import DenoisingQueries, draw_denoising_queries
from boxwright.queries.explanation import (
    LayerPredictions,
    QueryDecoder,
    QueryExplainer,
    SelectedTokens,
)
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import DecoderOptions, DenoisingOptions, QueryLossWeights
from boxwright.queries.selection import Selection, make_anchors, measure_selection, select_tokens
from boxwright.queries.tokens import LevelProjections
from boxwright.recorded import Recorded
from boxwright.structures import ClassRows, Features, LossTotals, SelectionQuality, Spec, Targets

__all__ = ["RTDETR"]


class RTDETROutput(NamedTuple):
    """Predictions. Boxes are center boxes relative to the image inside its padding, in [0, 1].

    ``logits`` and ``boxes_cxcywh_norm`` are those of the decoder layers: of every layer with targets, of the last one
    without. ``valid_sizes`` are (height, width) of the images inside their padding. ``selected_*`` are the encoder's,
    which the decoder starts from. ``noised_*`` are the decoder layers' predictions from the denoising queries, and
    ``denoising`` these queries; without targets or denoising there are none, and None. ``selected_tokens`` are indices
    of the encoder's tokens, the best first.
    """

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]
    valid_sizes: Float[Tensor, "#b 2"]
    selected_logits: Float[Tensor, "b q k"]
    selected_boxes_cxcywh_norm: Float[Tensor, "b q 4"]
    noised_logits: Float[Tensor, "l b d k"]
    noised_boxes_cxcywh_norm: Float[Tensor, "l b d 4"]
    denoising: DenoisingQueries | None
    selected_tokens: Int[Tensor, "b q"] | None = None


class RTDETR(PairDetections, nn.Module):
    """Selection of the best encoder tokens as queries, which a deformable decoder refines layer by layer.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of the decoder's ``num_heads``.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder.
        eval_layers: decoder layers that prediction uses; all where None.
        denoising: noised objects that the decoder is trained to recover.
        look_forward_twice: a layer's box loss also trains the box of the layer before, as in the authors' code.
        query_selection: ``uncertainty_minimal`` trains the encoder's scores on how well the boxes fit (varifocal loss),
            ``vanilla`` on the classes alone (focal loss).
        max_detections: most (query, class) pairs that are detected in an image.
        loss_weights: of varifocal, L1 and GIoU loss.

    Source: Zhao et al., RT-DETR, CVPR 2024; with other numbers of points, offset scale or discrete sampling in
    ``decoder``, Lv et al., RT-DETRv2, 2024. Checked against transformers' RTDetrForObjectDetection (outputs,
    assignments, losses, gradients; it leaves out the second look forward) and lyuwenyu/RT-DETR 068dfde, both versions.
    Differs in running the encoder's box head on the selected tokens only, in masking padding where there is any, and in
    discrete sampling on maps that are not square; see ``MultiScaleDeformableAttention``.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 300,
        decoder: DecoderOptions = DecoderOptions(),
        eval_layers: int | None = None,
        denoising: DenoisingOptions = DenoisingOptions(),
        look_forward_twice: bool = True,
        query_selection: Literal["uncertainty_minimal", "vanilla"] = "uncertainty_minimal",
        max_detections: int = 300,
        loss_weights: QueryLossWeights = QueryLossWeights(),
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "num_queries": num_queries})
        check_hidden_dim(hidden_dim, decoder.num_heads)
        num_layers = decoder.num_layers
        if eval_layers is not None and not 1 <= eval_layers <= num_layers:
            raise ValueError(f"eval_layers is between 1 and num_layers ({num_layers}), not {eval_layers}")
        self.num_classes, self.num_queries, self.max_detections = num_classes, num_queries, max_detections
        self.eval_layers, self.denoising = eval_layers or num_layers, denoising
        self.look_forward_twice = look_forward_twice
        # For counting only: run the encoder's box head on every token, as the published graph does.
        self.count_as_published = False
        self.criterion = self.encoder_criterion = SetCriterion(VarifocalLoss(), HungarianMatcher(), loss_weights)
        if query_selection == "vanilla":
            self.encoder_criterion = SetCriterion(FocalLoss(), HungarianMatcher(), loss_weights)

        self.projections = LevelProjections(in_spec, hidden_dim, lambda c, d: ConvNorm(c, d, 1), every_level=True)
        self.encoder_output = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim))
        self.encoder_classes = nn.Linear(hidden_dim, num_classes)
        self.encoder_boxes = MLP(hidden_dim, hidden_dim, 4, 3)
        self.query_positions = MLP(4, 2 * hidden_dim, hidden_dim, 2)
        # The last row, for queries without object, stays zero.
        self.denoising_classes = nn.Embedding(num_classes + 1, hidden_dim, padding_idx=num_classes)
        # Without denoising it is in no graph, and processes would wait for its gradient.
        self.denoising_classes.requires_grad_(denoising.num_queries > 0)
        self.layers = build_decoder_layers(decoder, hidden_dim, len(self.projections.levels))
        self.classes = nn.ModuleList(nn.Linear(hidden_dim, num_classes) for _ in range(num_layers))
        self.boxes = nn.ModuleList(MLP(hidden_dim, hidden_dim, 4, 3) for _ in range(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier around the selection, class and box heads as ``reset_predictors``."""
        reset_predictors((self.encoder_classes, *self.classes), (self.encoder_boxes, *self.boxes))
        for module in (*self.encoder_output.modules(), *self.query_positions.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> RTDETROutput:
        """Predict; with ``targets`` from every layer, and from denoising queries too."""
        maps, valid_sizes = self.projections(features, padding_mask, valid_sizes)
        tokens = flatten_levels(maps, padding_mask)
        selection = self._select(tokens)
        content, reference_logit = selection.content.detach(), selection.boxes_logit.detach()
        denoising, blocked, noised = None, None, 0
        if targets is not None and self.denoising.num_queries > 0:
            denoising = draw_denoising_queries(
                normalize_targets(targets),
                self.num_classes,
                self.denoising,
                seeds=[target.seed for target in targets],
                most_objects=max(target.most_objects or 0 for target in targets),
            )
            noised = denoising.labels.shape[1]
            blocked = denoising.block_attention(content.shape[1])
            content = torch.cat((self.denoising_classes(denoising.labels).to(content.dtype), content), 1)
            reference_logit = torch.cat((inverse_sigmoid(denoising.boxes_cxcywh_norm), reference_logit), 1)
        num_layers = self.eval_layers if targets is None else len(self.layers)
        logits, boxes = decode_queries(
            self.layers[:num_layers],
            tokens,
            content,
            reference_logit.sigmoid(),
            positions=lambda reference: self.query_positions(cast_to_weights(reference, self.query_positions)),
            classes=self.classes,
            boxes=self.boxes,
            every_layer=targets is not None,
            refinement="twice" if self.look_forward_twice else "once",
            blocked=blocked,
        )
        selected = selection.logits, selection.boxes_logit.sigmoid()
        noised_predictions = logits[:, :, :noised], boxes[:, :, :noised]
        predictions = logits[:, :, noised:], boxes[:, :, noised:]
        return RTDETROutput(*predictions, valid_sizes, *selected, *noised_predictions, denoising, selection.tokens)

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layers with a row for each class."""
        return {
            "encoder_classes": ClassRows(),
            "denoising_classes": ClassRows(others=1),
            **{f"classes.{i}": ClassRows() for i in range(len(self.classes))},
        }

    def loss(
        self, output: RTDETROutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted loss terms of every decoder layer, of the selection and of denoising."""
        normalized, totals = normalize_targets(targets), totals or LossTotals.of(targets)
        num_layers = len(output.logits)
        names, logits, boxes = layer_suffixes(num_layers), output.logits, output.boxes_cxcywh_norm
        selected = output.selected_logits[None], output.selected_boxes_cxcywh_norm[None]
        if self.encoder_criterion is self.criterion:
            # Together, so that all costs are computed and copied once.
            logits, boxes = torch.cat((logits, selected[0])), torch.cat((boxes, selected[1]))
            terms = name_terms(self.criterion(logits, boxes, normalized, totals), [*names, "_encoder"])
        else:
            terms = name_terms(self.criterion(logits, boxes, normalized, totals), names)
            terms |= name_terms(self.encoder_criterion(*selected, normalized, totals), ["_encoder"])
        if output.denoising is not None:
            matches, groups = output.denoising.matches.repeat(num_layers), output.denoising.num_groups
            noised = output.noised_logits, output.noised_boxes_cxcywh_norm
            losses = self.criterion(*noised, normalized, totals, matches, groups)
            terms |= name_terms(losses, [f"_denoising_{i}" for i in range(num_layers)])
        return terms

    def selection_quality(self, output: RTDETROutput, targets: Sequence[Targets]) -> SelectionQuality:
        """Count over the selected tokens."""
        return measure_selection(output.selected_logits, output.selected_boxes_cxcywh_norm, normalize_targets(targets))

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain`` needs."""
        return self._decoder().recorded_modules()

    def explain(self, output: RTDETROutput, recorded: Recorded, detection: int) -> QueryMechanism:
        """Explain a detection by the encoder's token that became its query, and by the decoder's layers."""
        assert output.selected_tokens is not None
        decoder, selected = self._decoder(), output.selected_boxes_cxcywh_norm
        references, logits, boxes = predict_layers(
            decoder.contents(recorded), selected, classes=self.classes, boxes=self.boxes, refinement="once"
        )
        scores = at_least_float32(output.selected_logits).sigmoid().amax(-1)
        return QueryExplainer(
            output,
            rank_pairs(output.logits[-1], self.max_detections),
            LayerPredictions(references, at_least_float32(logits).sigmoid(), boxes),
            decoder,
            recorded,
            SelectedTokens(output.selected_tokens, scores, selected),
        ).explain(detection)

    def _decoder(self) -> QueryDecoder:
        return QueryDecoder(self.projections, self.layers[: self.eval_layers])

    def _select(self, tokens: LevelTokens) -> Selection:
        anchors = make_anchors(tokens, by_ratio=True)
        memory = self.encoder_output(tokens.memory * anchors.valid)
        heads = self.encoder_classes, self.encoder_boxes
        return select_tokens(memory, anchors, *heads, self.num_queries, every_token=self.count_as_published)
