"""The common part of heads whose queries begin as the encoder's tokens, with boxes that every layer refines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.layers.tokens import LevelTokens
from boxwright.queries.auxiliary import QueryStart
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms
from boxwright.queries.decoder import LayerHeads, Refinement, decode_queries, predict_layers
from boxwright.queries.denoising import DenoisingQueries
from boxwright.queries.encoder_queries import DecoderStart, EncoderQueries
from boxwright.queries.groups import GroupPredictions, fold_groups
from boxwright.queries.mask_branch import MaskFactors
from boxwright.queries.taught_queries import Taught
from boxwright.queries.union import Assignment
from boxwright.structures import Features, LossTotals, Targets


class RefinedOutput(NamedTuple):
    """Predictions. Boxes are center boxes relative to the image inside its padding, in [0, 1].

    ``logits`` and ``boxes_cxcywh_norm`` are those of the decoder layers: of every layer with targets, of the last one
    without. ``valid_sizes`` are (height, width) of the images inside their padding. ``selected_*`` are the encoder's,
    which the decoder starts from. ``noised_*`` are the decoder layers' predictions from the denoising queries, and
    ``denoising`` these queries; without targets or denoising there are none, and None. ``selected_tokens`` are indices
    of the encoder's tokens, the best first. ``others`` are predictions of further groups of queries, in training.
    ``assignment`` is that of the head's ``assign``. ``masks`` of all groups and ``noised_masks`` are those of the
    decoder layers, None where the head has none; ``selected_masks`` are the encoder's, where it learns from them.
    ``taught`` is what auxiliary heads and a teacher of features train, in training.
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
    others: GroupPredictions | None = None
    assignment: Assignment | None = None
    masks: MaskFactors | None = None
    noised_masks: MaskFactors | None = None
    selected_masks: MaskFactors | None = None
    taught: Taught = Taught()

    @property
    def every_mask(self) -> MaskFactors | None:
        """Masks of the decoder layers, and then the encoder's, where there are any; of all groups."""
        if self.masks is None or self.selected_masks is None:
            return self.masks
        return self.masks.append(self.selected_masks)

    @property
    def num_groups(self) -> int:
        """Number of groups of queries."""
        return 1 if self.others is None else 1 + self.others.logits.shape[1] // self.logits.shape[1]

    @property
    def every_prediction(self) -> tuple[Float[Tensor, "n gb q k"], Float[Tensor, "n gb q 4"]]:
        """Logits and boxes of the decoder layers, and then the encoder's; of all groups, each as images of a batch."""
        selected = self.selected_logits, self.selected_boxes_cxcywh_norm
        first = GroupPredictions(self.logits, self.boxes_cxcywh_norm, *selected).list_layers()
        if self.others is None:
            return first
        others = self.others.list_layers()
        return torch.cat((first[0], others[0]), 1), torch.cat((first[1], others[1]), 1)


class RefinedQueries(EncoderQueries):
    """Encoder's tokens as queries, whose boxes a deformable decoder refines layer by layer; a base class.

    Beside the ``layers`` such a head sets ``classes`` and ``boxes``, the heads of each layer or one for all, and the
    criteria of the decoder's predictions and of the encoder's.
    """

    boxes: nn.ModuleList
    criterion: SetCriterion
    encoder_criterion: SetCriterion
    refinement: Refinement = "twice"

    def criteria(self) -> list[SetCriterion]:
        """List the criteria of the head's losses."""
        return [self.criterion, self.encoder_criterion]

    def layer_heads(self) -> LayerHeads:
        """Return the heads that predict after each layer."""
        return LayerHeads(self.classes, self.boxes)

    def encode_on_maps(self, reference: Float[Tensor, "b q 4"], tokens: LevelTokens) -> Float[Tensor, "b q d"]:
        """Encode references as positions of queries."""
        return self.encode_references(reference)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> RefinedOutput:
        """Predict; with ``targets`` from every layer, and from denoising queries too."""
        start = self.start_decoder(features, padding_mask, targets, valid_sizes)
        logits, boxes, contents = decode_queries(
            self.layers_to_run(targets),
            start.tokens,
            start.content,
            start.reference,
            positions=self.hold_positions(lambda box: self.encode_on_maps(box, start.tokens), start.reference),
            heads=self.layer_heads(),
            every_layer=targets is not None,
            refinement=self.refinement,
            blocked=start.blocked,
            num_groups=start.num_groups,
        )
        selection, noised, others = start.selection, start.num_noised, None
        rest = noised + selection.logits.shape[1]
        noised_masks, masks = self.predict_masks(start, contents, targets)
        if start.num_groups > 1:
            others = GroupPredictions(
                fold_groups(logits[:, :, rest:], start.num_groups - 1, axis=1),
                fold_groups(boxes[:, :, rest:], start.num_groups - 1, axis=1),
                *start.other_selections,
            )
        return RefinedOutput(
            logits[:, :, noised:rest],
            boxes[:, :, noised:rest],
            start.valid_sizes,
            selection.logits,
            selection.boxes_cxcywh_norm,
            logits[:, :, :noised],
            boxes[:, :, :noised],
            start.denoising,
            selection.tokens,
            others,
            masks=masks,
            noised_masks=noised_masks,
            selected_masks=None if targets is None else self.predict_selected_masks(start),
            taught=self.teach(
                features, padding_mask, targets, valid_sizes, lambda queries: self._decode(queries, start.tokens)
            ),
        )

    def _decode(
        self, start: QueryStart, tokens: LevelTokens
    ) -> tuple[Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        """Decode further queries to the logits and boxes of every layer."""
        decoded = decode_queries(
            self.layers,
            tokens,
            start.content,
            start.reference,
            positions=self.hold_positions(lambda box: self.encode_on_maps(box, tokens), start.reference),
            heads=self.layer_heads(),
            every_layer=True,
            refinement=self.refinement,
            blocked=start.blocked,
        )
        return decoded.logits, decoded.boxes_cxcywh_norm

    def predict_selected_masks(self, start: DecoderStart) -> MaskFactors | None:
        """Predict masks of the selected tokens of all groups, for training; None where these do not learn from them."""
        return None

    def predict_layers(
        self, contents: Sequence[Float[Tensor, "b q d"]], reference: Float[Tensor, "b q 4"]
    ) -> tuple[list[Float[Tensor, "b q 4"]], Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        """Predict from the contents that the decoder had after each layer; reference, logits and boxes of each."""
        return predict_layers(contents, reference, self.layer_heads(), self.refinement)

    def assign(self, output: RefinedOutput, targets: Sequence[Targets]) -> RefinedOutput:
        """Assign the predictions of every layer to objects; ``loss`` goes on from there."""
        objects = self.normalize_targets(targets) * output.num_groups
        assignment = self.criterion.assign(*output.every_prediction, objects, output.every_mask)
        return output._replace(assignment=assignment)

    def count_assigned(self, output: RefinedOutput) -> int:
        """Count the queries that a layer, or the encoder, assigned to an object."""
        assert output.assignment is not None
        return len(output.assignment.united.query)

    def loss(
        self, output: RefinedOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted loss terms of every decoder layer, of the selection and of denoising."""
        normalized, of_step, totals = self.normalize_targets(targets), totals, totals or LossTotals.of(targets)
        (logits, boxes), num_layers = output.every_prediction, len(output.logits)
        objects, masks = normalized * output.num_groups, output.every_mask
        if self.divides_by_assigned and output.assignment is None:
            output = self.assign(output, targets)
        if output.assignment is None:
            # Together, so that all costs are computed and copied once.
            matches, united = self.criterion.matcher(logits, boxes, objects, masks), None
        else:
            matches, united = output.assignment
            totals = totals if totals.matches is not None else totals._replace(matches=len(united.query))
        of_groups, names = totals.of_groups(output.num_groups), [*layer_suffixes(num_layers), "_encoder"]
        criteria = [(self.criterion, slice(num_layers)), (self.encoder_criterion, slice(num_layers, None))]
        if self.encoder_criterion is self.criterion:
            criteria = [(self.criterion, slice(None))]
        terms: dict[str, Tensor] = {}
        for criterion, part in criteria:
            own = matches.select(part)
            losses = criterion(logits[part], boxes[part], objects, of_groups, own, united=united)
            terms |= name_terms(losses, names[part])
        losses = self.criterion.mask_losses(masks, matches, objects, of_groups)
        terms |= name_terms(losses, names[: 0 if masks is None else len(masks.maps)])
        if output.denoising is not None:
            matches, groups = output.denoising.matches.repeat(num_layers), output.denoising.num_groups
            noised = output.noised_logits, output.noised_boxes_cxcywh_norm
            losses = self.criterion(*noised, normalized, totals, matches, groups)
            losses |= self.criterion.mask_losses(output.noised_masks, matches, normalized, totals, groups)
            terms |= name_terms(losses, [f"_denoising_{i}" for i in range(num_layers)])
        return terms | self.taught_losses(output, targets, normalized, of_step, self.criterion)
