"""The common part of heads whose queries begin as the encoder's best tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, cast

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
from boxwright.queries.criterion import SetCriterion, normalize_targets
from boxwright.queries.decode import PairDetections, QueryOutput, rank_pairs
from boxwright.queries.denoising import DenoisingQueries, draw_denoising_queries
from boxwright.queries.explanation import LayerPredictions, QueryDecoder, QueryExplainer, SelectedTokens
from boxwright.queries.groups import EncoderHeads, GroupEncoder, join_queries
from boxwright.queries.mask_branch import MaskFactors, build_mask_branch
from boxwright.queries.matching import NormalizedTargets
from boxwright.queries.options import EARLY_STEPS, DecoderOptions, DenoisingOptions, UnitedSupervisionOptions
from boxwright.queries.selection import Selection, make_anchors, measure_selection, select_tokens
from boxwright.queries.taught_queries import TaughtQueries
from boxwright.queries.tokens import LevelProjections
from boxwright.recorded import Recorded
from boxwright.structures import ClassRows, Features, MaskRegion, SelectionQuality, Spec, Targets

EncodeReferences = Callable[[Float[Tensor, "b q 4"]], Float[Tensor, "b q d"]]
"""Encoding of center boxes as positions of queries."""


class SelectedOutput(QueryOutput, Protocol):
    """Output of a head whose queries were selected: the encoder's predictions, and indices of its tokens."""

    @property
    def selected_logits(self) -> Float[Tensor, "b q k"]: ...

    @property
    def selected_boxes_cxcywh_norm(self) -> Float[Tensor, "b q 4"]: ...

    @property
    def selected_tokens(self) -> Int[Tensor, "b q"] | None: ...


class DecoderStart(NamedTuple):
    """Queries and tokens that the decoder begins with, noised queries first.

    ``reference`` are center boxes relative to the image inside its padding. ``blocked`` is True where a noised query,
    or one of the first group (row), must not attend to another (column). Without denoising, ``denoising`` and
    ``blocked`` are None. ``selections`` are those of all groups; ``finest`` is the finest level.
    """

    tokens: LevelTokens
    content: Float[Tensor, "b q d"]
    reference: Float[Tensor, "b q 4"]
    blocked: Bool[Tensor, "f f"] | None
    selections: Sequence[Selection]
    denoising: DenoisingQueries | None
    valid_sizes: Float[Tensor, "#b 2"]
    finest: Float[Tensor, "b d y x"]

    @property
    def num_noised(self) -> int:
        """Number of noised queries."""
        return 0 if self.denoising is None else self.denoising.labels.shape[1]

    @property
    def num_groups(self) -> int:
        """Number of groups of queries."""
        return len(self.selections)

    @property
    def selection(self) -> Selection:
        """The selection of the first group, which predicts."""
        return self.selections[0]

    @property
    def other_selections(self) -> tuple[Float[Tensor, "n q k"], Float[Tensor, "n q 4"]]:
        """Logits and boxes of the selections of further groups, each as an image of the batch."""
        others = self.selections[1:]
        return torch.cat([one.logits for one in others]), torch.cat([one.boxes_cxcywh_norm for one in others])


class EncoderQueries(PairDetections, TaughtQueries):
    """Queries that begin as the best tokens of the encoder, with noised objects beside them in training; a base class.

    Such a head sets ``layers`` and ``classes``, the decoder layers and their class heads, and says by
    ``predict_layers`` what a decoder layer predicts.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of the decoder's ``num_heads``.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder.
        denoising: noised objects that the decoder is trained to recover; a head with None has no such part.
        supervision: what predictions learn from; each group of queries has selecting heads of its own.
        max_detections: most (query, class) pairs that are detected in an image.
        project_every_level: project levels too that have the width already.
        reference_encoding: see ``RefiningDecoderOptions``.
        masks: predict masks too.
    """

    layers: nn.ModuleList
    classes: nn.ModuleList
    mask_region: MaskRegion | None = None
    anchors_by_ratio = True
    """Centers of anchors are computed by valid ratios; see ``compute_cell_centers``."""
    boxes_are_relative = False
    """Box heads predict what ``move_boxes`` takes, rather than offsets before the sigmoid."""

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
        project_every_level: bool,
        reference_encoding: Literal["wide", "deep"] = "wide",
        masks: bool = False,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "num_queries": num_queries})
        check_hidden_dim(hidden_dim, decoder.num_heads)
        self.num_classes, self.num_queries, self.max_detections = num_classes, num_queries, max_detections
        self.eval_layers, self.denoising = decoder.predicting_layers, denoising
        self.divides_by_assigned, self.late_cost = supervision.united_matches, supervision.late_cost
        self.early_class_factor = supervision.early_class_factor
        # For counting only: run the encoder's box head on every token, as the published graph does.
        self.count_as_published = False
        self.projections = LevelProjections(
            in_spec, hidden_dim, lambda c, d: ConvNorm(c, d, 1), every_level=project_every_level
        )
        self.is_lean, self.encoder_output = decoder.is_lean, nn.Sequential()
        if not self.is_lean:
            self.encoder_output.extend((nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim)))
        self.encoder_classes = nn.Linear(hidden_dim, num_classes)
        activation = decoder.activation
        self.encoder_boxes = MLP(hidden_dim, hidden_dim, 4, 3, activation=activation)
        width, depth = (2 * hidden_dim, 2) if reference_encoding == "wide" else (hidden_dim, 3)
        self.query_positions = MLP(4, width, hidden_dim, depth, activation=activation)
        if denoising is not None:
            # The last row, for queries without object, stays zero.
            self.denoising_classes = nn.Embedding(num_classes + 1, hidden_dim, padding_idx=num_classes)
            # Without denoising it is in no graph, and processes would wait for its gradient.
            self.denoising_classes.requires_grad_(denoising.num_queries > 0)
        self.group_encoders = nn.ModuleList(
            GroupEncoder(hidden_dim, num_classes, activation, mapped=not self.is_lean)
            for _ in range(supervision.num_groups - 1)
        )
        self.build_teachers(in_spec, hidden_dim, decoder.num_heads, supervision, with_positions=False)
        self.masks, region = build_mask_branch(masks, hidden_dim, decoder.num_layers, self.projections)
        self.mask_region = region or self.mask_region

    def reset_selection(self) -> None:
        """Initialize what surrounds the selection by Xavier's rule, as published."""
        for module in (*self.encoder_output.modules(), *self.query_positions.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def start_decoder(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None,
        targets: Sequence[Targets] | None,
        valid_sizes: Float[Tensor, "#b 2"] | None,
    ) -> DecoderStart:
        """Select tokens and, with targets, those of every group, and draw noised queries."""
        maps, valid_sizes = self.projections(features, padding_mask, valid_sizes)
        tokens = flatten_levels(maps, padding_mask)
        selections = self._select(tokens, len(self.group_encoders) + 1 if targets is not None else 1)
        contents = [self.begin_contents(selection, group) for group, selection in enumerate(selections)]
        references = [self.begin_references(one.boxes_cxcywh_norm, group) for group, one in enumerate(selections)]
        denoising, blocked = None, None
        if targets is not None and self.denoising is not None and self.denoising.num_queries > 0:
            denoising = draw_denoising_queries(
                normalize_targets(targets),
                self.num_classes,
                self.denoising,
                seeds=[target.seed for target in targets],
                most_objects=max(target.most_objects or 0 for target in targets),
            )
            blocked = denoising.block_attention(contents[0].shape[1])
            contents.insert(0, self.denoising_classes(denoising.labels).to(contents[0].dtype))
            references.insert(0, self.begin_noised_references(denoising))
        content, reference = join_queries(contents), join_queries(references)
        return DecoderStart(tokens, content, reference, blocked, selections, denoising, valid_sizes, maps[0])

    def predict_masks(
        self, start: DecoderStart, contents: Sequence[Float[Tensor, "b q d"]], targets: Sequence[Targets] | None
    ) -> tuple[MaskFactors | None, MaskFactors | None]:
        """Predict masks from the contents after the layers that predict: of noised queries, and of all groups."""
        if self.masks is None:
            return None, None
        masks: MaskFactors = self.masks(start.finest, torch.stack(list(contents)), len(self.layers_to_run(targets)))
        noised, others = masks.split(start.num_noised)
        return noised, others.fold(start.num_groups)

    def normalize_targets(self, targets: Sequence[Targets]) -> list[NormalizedTargets]:
        """Convert targets to the units that are predicted, with masks where these are."""
        return normalize_targets(targets, with_masks=self.masks is not None)

    def begin_contents(self, selection: Selection, group: int) -> Float[Tensor, "b q d"]:
        """Return the contents of the selected queries before the first layer: those of their tokens."""
        return selection.content.detach()

    def begin_references(self, selected: Float[Tensor, "b q 4"], group: int) -> Float[Tensor, "b q 4"]:
        """Return the references of the selected queries for the first layer: their boxes, as constants."""
        return selected.detach()

    def begin_noised_references(self, denoising: DenoisingQueries) -> Float[Tensor, "b q 4"]:
        """Return the references of denoising queries: their boxes, a margin away from 0 and 1."""
        return inverse_sigmoid(denoising.boxes_cxcywh_norm).sigmoid()

    def layers_to_run(self, targets: Sequence[Targets] | None) -> nn.ModuleList:
        """Return the decoder layers that run: all with targets, ``eval_layers`` without."""
        return self.layers if targets is not None else self.layers[: self.eval_layers]

    def encode_references(self, reference: Float[Tensor, "b q 4"]) -> Float[Tensor, "b q d"]:
        """Encode center boxes as positions of queries."""
        encoded: Tensor = self.query_positions(cast_to_weights(reference, self.query_positions))
        return encoded

    def hold_positions(self, encode: EncodeReferences, reference: Float[Tensor, "b q 4"]) -> EncodeReferences:
        """Return ``encode``, or where the head is lean, its result for the first layer's reference, for all layers."""
        if not self.is_lean:
            return encode
        first = encode(reference)
        return lambda _: first

    def criteria(self) -> list[SetCriterion]:
        """List the criteria of the head's losses."""
        raise NotImplementedError

    def set_progress(self, fraction: float, steps_from_scratch: int | None = None) -> None:
        """Choose the cost of matches, and the factor of class losses, for a step at this fraction of the training."""
        early = 0.0 if steps_from_scratch is None else max(0.0, 1 - steps_from_scratch / EARLY_STEPS)
        class_factor = 1 + (self.early_class_factor - 1) * early
        for criterion in self.criteria():
            criterion.matcher.is_late = self.late_cost is not None and fraction >= self.late_cost
            criterion.class_factor = class_factor

    def predict_layers(
        self, contents: Sequence[Float[Tensor, "b q d"]], reference: Float[Tensor, "b q 4"]
    ) -> tuple[list[Float[Tensor, "b q 4"]], Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        """Predict from the contents that the decoder had after each layer, as if it were the last.

        Returns:
            reference, logits and center boxes of each layer.
        """
        raise NotImplementedError

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layers with a row for each class."""
        return {
            "encoder_classes": ClassRows(),
            **({} if self.denoising is None else {"denoising_classes": ClassRows(others=1)}),
            **{f"classes.{i}": ClassRows() for i in range(len(self.classes))},
            **{f"group_encoders.{i}.classes": ClassRows() for i in range(len(self.group_encoders))},
            **self.auxiliary_rows(),
        }

    def selection_quality(self, output: SelectedOutput, targets: Sequence[Targets]) -> SelectionQuality:
        """Count over the selected tokens."""
        return measure_selection(output.selected_logits, output.selected_boxes_cxcywh_norm, normalize_targets(targets))

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain`` needs."""
        return self._decoder().recorded_modules()

    def explain(self, output: SelectedOutput, recorded: Recorded, detection: int) -> QueryMechanism:
        """Explain a detection by the encoder's token that became its query, and by the decoder's layers."""
        assert output.selected_tokens is not None
        decoder, selected = self._decoder(), output.selected_boxes_cxcywh_norm
        references, logits, boxes = self.predict_layers(decoder.contents(recorded), self.begin_references(selected, 0))
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
        return QueryDecoder(self.projections, self.layers_to_run(None))

    def _select(self, tokens: LevelTokens, num_groups: int) -> list[Selection]:
        """Select the tokens of each group."""
        anchors = make_anchors(tokens, by_ratio=self.anchors_by_ratio, relative=self.boxes_are_relative)
        memory, every = tokens.memory * anchors.valid, self.count_as_published
        groups = [EncoderHeads(self.encoder_output, self.encoder_classes, self.encoder_boxes)]
        groups += [cast(GroupEncoder, encoder).heads() for encoder in self.group_encoders[: num_groups - 1]]
        return [
            select_tokens(
                heads.output(memory), anchors, heads.classes, heads.boxes, self.num_queries, every_token=every
            )
            for heads in groups
        ]
