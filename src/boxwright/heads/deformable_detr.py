"""Deformable DETR's head: a deformable decoder; with iterative refinement; with queries from the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.deformable_transformer import encode_box_sine, level_projection, reset_transformer
from boxwright.layers.mlp import MLP
from boxwright.layers.option_checks import check_counts, check_hidden_dim
from boxwright.layers.predictions import run_in_full_precision
from boxwright.layers.tokens import LevelTokens, flatten_levels
from boxwright.mechanism import QueryMechanism
from boxwright.ops.boxes import at_least_float32
from boxwright.queries.auxiliary import QueryStart
from boxwright.queries.class_losses import make_class_loss
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms, normalize_targets
from boxwright.queries.decode import PairDetections, rank_pairs
from boxwright.queries.decoder import (
    LayerHeads,
    Refinement,
    build_decoder_layers,
    decode_queries,
    predict_layers,
    reset_predictors,
)
from boxwright.queries.deformable_output import DeformableDETROutput, list_others
from boxwright.queries.explanation import (
    LayerPredictions,
    QueryDecoder,
    QueryExplainer,
    SelectedTokens,
)
from boxwright.queries.groups import EncoderHeads, GroupEncoder, join_queries
from boxwright.queries.learned_queries import look_up
from boxwright.queries.mask_branch import build_mask_branch
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import DecoderOptions, QueryLossWeights, SupervisionOptions
from boxwright.queries.selection import Selection, make_anchors, measure_selection, select_tokens
from boxwright.queries.taught_queries import TaughtQueries
from boxwright.queries.tokens import LevelProjections
from boxwright.recorded import Recorded
from boxwright.structures import ClassRows, Features, LossTotals, SelectionQuality, Spec, Targets

__all__ = ["DeformableDETR"]


class DeformableDETR(PairDetections, TaughtQueries):
    """Queries that sample around a point each; with ``refine`` around a box, which every layer corrects.

    With ``two_stage`` the best tokens of the encoder become the queries.

    Args:
        in_spec: the levels that come in, fine to coarse; those that are not ``hidden_dim`` wide are projected.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of 4 and of the decoder's ``num_heads``.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder.
        refine: each layer corrects the boxes of the layer before, with class and box heads of its own; with ``twice``
            its losses train these boxes too (looking forward twice).
        two_stage: queries come from the encoder; needs ``refine``. With ``mixed`` their boxes do, and contents are
            learned.
        auxiliary_losses: train every layer, not only the last; ``refine`` needs it.
        max_detections: most (query, class) pairs that are detected in an image.
        supervision: what all predictions learn from.
        loss_weights: of class, L1 and GIoU loss, and of those of masks.
        masks: predict masks too.

    Source: Zhu et al., Deformable DETR, ICLR 2021. Checked against transformers' DeformableDetrForObjectDetection and
    fundamentalvision/Deformable-DETR 11169a6: outputs, assignments, losses, gradients. Where paper and code disagree it
    is the code: initial sizes of about 0.12 (sigmoid of -2) instead of 0.1, sampling offsets of refined boxes that are
    scaled by the box and not at the start, and tokens that are ranked by the logit of class 0, trained on all objects
    as if they were of that class. Differs in sharing the heads without copies in checkpoints, and in running the
    encoder's box head on the selected tokens only, where there are no targets.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 300,
        decoder: DecoderOptions = DecoderOptions(dropout=0.1),
        refine: bool | Literal["twice"] = False,
        two_stage: bool | Literal["mixed"] = False,
        auxiliary_losses: bool = True,
        max_detections: int = 100,
        supervision: SupervisionOptions = SupervisionOptions(),
        loss_weights: QueryLossWeights = QueryLossWeights(class_weight=2.0),
        masks: bool = False,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "num_queries": num_queries})
        check_hidden_dim(hidden_dim, decoder.num_heads, sine=True)
        if two_stage and not refine:
            raise ValueError("two_stage selects boxes, which only refine can start from: set refine to true as well")
        if refine and not auxiliary_losses:
            raise ValueError("refine needs auxiliary_losses: nothing else trains the boxes of layers before the last")
        self.hidden_dim, self.num_queries, self.max_detections = hidden_dim, num_queries, max_detections
        self.two_stage, self.auxiliary_losses = bool(two_stage), auxiliary_losses
        self.refinement: Refinement = "twice" if refine == "twice" else "once" if refine else "none"
        self.eval_layers = decoder.predicting_layers
        # For counting only: run all heads of all layers and tokens, as the published graph does.
        self.count_as_published = False
        self.criterion = SetCriterion(make_class_loss(supervision.class_loss), HungarianMatcher(), loss_weights)
        self.num_groups, others = supervision.num_groups, range(supervision.num_groups - 1)
        self.projections = LevelProjections(in_spec, hidden_dim, level_projection)
        self.contents = None
        if two_stage:
            self.encoder_output = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim))
            linear = nn.Linear(2 * hidden_dim, 2 * hidden_dim)
            self.proposal_queries = nn.Sequential(linear, nn.LayerNorm(2 * hidden_dim))
            self.groups = nn.ModuleList(GroupEncoder(hidden_dim, num_classes, decoder.activation) for _ in others)
            if two_stage == "mixed":
                self.contents = nn.ModuleList(nn.Embedding(num_queries, hidden_dim) for _ in range(self.num_groups))
        else:
            self.queries = nn.Embedding(num_queries, 2 * hidden_dim)  # position, content
            self.groups = nn.ModuleList(nn.Embedding(num_queries, 2 * hidden_dim) for _ in others)
            self.reference_points = nn.Linear(hidden_dim, 2)
        self.layers = build_decoder_layers(decoder, hidden_dim, len(self.projections.levels))
        # One pair for all layers, or one per layer; then one for the encoder.
        num_pairs = decoder.num_layers + bool(two_stage) if refine else 1
        classes = nn.Linear(hidden_dim, num_classes)
        boxes = MLP(hidden_dim, hidden_dim, 4, 3, activation=decoder.activation)
        self.classes = nn.ModuleList(deepcopy(classes) for _ in range(num_pairs))
        self.boxes = nn.ModuleList(deepcopy(boxes) for _ in range(num_pairs))
        self.build_teachers(in_spec, hidden_dim, decoder.num_heads, supervision, with_positions=True)
        self.masks, self.mask_region = build_mask_branch(masks, hidden_dim, decoder.num_layers, self.projections)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier for the transformer, class and box heads as ``reset_predictors``.

        A point has no size, so that the head that answers to points starts with sides of sigmoid(-2).
        """
        reset_transformer(self.layers)
        reset_predictors(self.classes, self.boxes)
        if self.two_stage:
            reset_transformer(self.encoder_output)
            reset_transformer(self.proposal_queries)
        else:
            nn.init.xavier_uniform_(self.reference_points.weight)
            nn.init.zeros_(self.reference_points.bias)
            last = cast(nn.Linear, cast(MLP, self.boxes[0]).layers[-1])
            nn.init.constant_(last.bias[2:], -2.0)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> DeformableDETROutput:
        """Predict; with ``targets`` from every layer and token that is trained."""
        maps, valid_sizes = self.projections(features, padding_mask, valid_sizes)
        tokens = flatten_levels(maps, padding_mask)
        every = targets is not None or self.count_as_published
        num_groups = self.num_groups if targets is not None else 1
        selections = self._select(tokens, num_groups, every_token=every)
        queries = [self._make_queries(tokens, selection, group) for group, selection in enumerate(selections)]
        content, positions, reference = (join_queries(parts) for parts in zip(*queries, strict=True))
        layers = self.layers[: self.eval_layers] if targets is None else self.layers
        logits, boxes, contents = decode_queries(
            layers,
            tokens,
            content,
            reference,
            positions=lambda _: positions,
            heads=LayerHeads(self.classes, self.boxes),
            every_layer=every and (self.auxiliary_losses or self.count_as_published),
            refinement=self.refinement,
            num_groups=num_groups,
            classes_first=True,
        )
        taught = self.teach(features, padding_mask, targets, valid_sizes, lambda start: self._decode(start, tokens))
        others, count, masks = None, logits.shape[2] // num_groups, None
        if self.masks is not None:
            masks = self.masks(maps[0], torch.stack(contents), len(layers)).fold(num_groups)
        if num_groups > 1:
            others = list_others(logits, boxes, selections)
            logits, boxes = logits[:, :, :count], boxes[:, :, :count]
        selection = selections[0]
        if selection is None:
            return DeformableDETROutput(logits, boxes, valid_sizes, others=others, masks=masks, taught=taught)
        selected = selection.logits, selection.boxes_cxcywh_norm
        encoded = *selected, selection.every_logits, selection.every_boxes_cxcywh_norm, selection.tokens
        return DeformableDETROutput(logits, boxes, valid_sizes, *encoded, others, masks, taught)

    def _decode(
        self, start: QueryStart, tokens: LevelTokens
    ) -> tuple[Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        """Decode further queries to the logits and boxes of the layers that are trained."""
        positions = cast(Tensor, start.positions)
        decoded = decode_queries(
            self.layers,
            tokens,
            start.content,
            start.reference,
            positions=lambda _: positions,
            heads=LayerHeads(self.classes, self.boxes),
            every_layer=self.auxiliary_losses,
            refinement=self.refinement,
            blocked=start.blocked,
            classes_first=True,
        )
        return decoded.logits, decoded.boxes_cxcywh_norm

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layers with a row for each class."""
        names = [f"classes.{i}" for i in range(len(self.classes))]
        names += [f"groups.{i}.classes" for i in range(len(self.groups))] if self.two_stage else []
        return {name: ClassRows() for name in names} | self.auxiliary_rows()

    def loss(
        self, output: DeformableDETROutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted loss terms of every decoder layer and of the encoder's tokens."""
        num_groups = 1 if output.others is None else self.num_groups
        objects = normalize_targets(targets, with_masks=self.masks is not None) * num_groups
        logits, boxes, *encoder = output.every_group()
        of_step = totals
        totals = (totals or LossTotals.of(targets)).of_groups(num_groups)
        losses = self.criterion(logits, boxes, objects, totals, masks=output.masks)
        terms = name_terms(losses, layer_suffixes(len(logits)))
        if encoder[0] is not None and encoder[1] is not None:
            # The first class stands for any object.
            any_object = [target._replace(labels=torch.zeros_like(target.labels)) for target in objects]
            losses = self.criterion(encoder[0][None], encoder[1][None], any_object, totals)
            terms |= name_terms(losses, ["_encoder"])
        return terms | self.taught_losses(output, targets, objects[: len(targets)], of_step, self.criterion)

    def selection_quality(self, output: DeformableDETROutput, targets: Sequence[Targets]) -> SelectionQuality | None:
        """Count over the selected tokens; None without two stages. The first logit stands for any object."""
        if output.selected_logits is None or output.selected_boxes_cxcywh_norm is None:
            return None
        scores = output.selected_logits[..., :1]
        return measure_selection(scores, output.selected_boxes_cxcywh_norm, normalize_targets(targets))

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain`` needs."""
        return QueryDecoder(self.projections, self.layers[: self.eval_layers]).recorded_modules()

    def explain(self, output: DeformableDETROutput, recorded: Recorded, detection: int) -> QueryMechanism:
        """Explain a detection by its query and the decoder's layers; with two stages also by the encoder's token."""
        decoder, selected = QueryDecoder(self.projections, self.layers[: self.eval_layers]), None
        references = output.selected_boxes_cxcywh_norm
        if output.selected_logits is not None and references is not None and output.selected_tokens is not None:
            # Tokens are ranked by the first class, which stands for any object.
            scores = at_least_float32(output.selected_logits)[..., 0].sigmoid()
            selected = SelectedTokens(output.selected_tokens, scores, references)
        predictions = predict_layers(
            decoder.contents(recorded),
            self._learned_queries()[2][None] if references is None else references,
            LayerHeads(self.classes, self.boxes),
            refinement=self.refinement,
        )
        ranked = rank_pairs(output.logits[-1], self.max_detections)
        scores = at_least_float32(predictions[1]).sigmoid()
        layers = LayerPredictions(predictions[0], scores, predictions[2])
        return QueryExplainer(output, ranked, layers, decoder, recorded, selected).explain(detection)

    def _select(self, tokens: LevelTokens, num_groups: int, *, every_token: bool) -> Sequence[Selection | None]:
        """Select the tokens of each group; None for each without two stages."""
        if not self.two_stage:
            return [None] * num_groups
        anchors = make_anchors(tokens)
        memory = tokens.memory * anchors.valid
        groups = [EncoderHeads(self.encoder_output, cast(nn.Linear, self.classes[-1]), self.boxes[-1])]
        groups += [cast(GroupEncoder, encoder).heads() for encoder in self.groups[: num_groups - 1]]
        return [
            select_tokens(
                heads.output(memory),
                anchors,
                heads.classes,
                heads.boxes,
                self.num_queries,
                by_first_class=True,
                every_token=every_token,
            )
            for heads in groups
        ]

    def _make_queries(
        self, tokens: LevelTokens, selection: Selection | None, group: int
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b q d"], Float[Tensor, "b q r"]]:
        """Make contents, positions and references of the selected boxes, or take the learned ones of a group."""
        if selection is None:
            repeats = tokens.memory.shape[0], 1, 1
            content, positions, reference = (one.repeat(repeats) for one in self._learned_queries(group))
            return content, positions, reference
        reference = selection.boxes_cxcywh_norm.detach()
        encoded = encode_box_sine(reference, self.hidden_dim // 2).to(selection.logits.dtype)
        positions, content = self.proposal_queries(encoded).chunk(2, -1)
        if self.contents is not None:
            return look_up(self.contents[group], selection.content), positions, reference
        # Contiguous: of a view, attention fixes the batch of an export (torch 2.15).
        return content.contiguous(), positions, reference

    def _learned_queries(
        self, group: int = 0
    ) -> tuple[Float[Tensor, "q d"], Float[Tensor, "q d"], Float[Tensor, "q 2"]]:
        """Look up contents, positions and reference points."""
        # Looked up, because a slice of a parameter asks for gradients even where there are none (torch 2.15).
        every_query = torch.arange(self.num_queries, device=self.queries.weight.device)
        queries = self.queries if group == 0 else self.groups[group - 1]
        positions, content = queries(every_query).chunk(2, -1)
        reference = run_in_full_precision(self.reference_points, positions).sigmoid()
        return content, positions, reference
