"""D-FINE's head: boxes whose sides are distributions, which the decoder's layers refine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.deformable_attention import Joining
from boxwright.layers.mlp import MLP
from boxwright.layers.tokens import LevelTokens
from boxwright.mechanism import QueryMechanism
from boxwright.queries.auxiliary import QueryStart
from boxwright.queries.class_losses import make_class_loss
from boxwright.queries.criterion import SetCriterion
from boxwright.queries.decode import QueryOutput, decode_pairs, rank_pairs, take_in_pixels
from boxwright.queries.decoder import build_decoder_layers, reset_predictors
from boxwright.queries.distribution_criterion import DistributionCriterion, DistributionLossWeights
from boxwright.queries.distribution_output import DistributionOutput
from boxwright.queries.distributions import (
    DistributionHeads,
    LocationQuality,
    SideBins,
    SideRefiner,
    decode_distributions,
)
from boxwright.queries.encoder_queries import EncoderQueries
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import DenoisingOptions, RefiningDecoderOptions, UnitedSupervisionOptions
from boxwright.queries.union import Assignment
from boxwright.recorded import Recorded
from boxwright.structures import Decoded, Features, LossTotals, Spec, Targets

__all__ = ["DFINE"]


class DFINE(EncoderQueries):
    """Selection of the best encoder tokens as queries; decoder layers refine a distribution for each side of the box.

    Args:
        in_spec: the levels that come in, fine to coarse; those that are not ``hidden_dim`` wide are projected.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of the decoder's ``num_heads``.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder; published with 3, 6 and 3 points on three levels.
        denoising: noised objects that the decoder is trained to recover.
        num_bins: of the distribution of a side, less one; even, at least 4.
        bin_scale: larger ones make the inner bins finer and the reach of a side shorter; positive.
        max_detections: most (query, class) pairs that are detected in an image.
        supervision: what the decoder's predictions learn from, and selected tokens.
        loss_weights: of class, L1, GIoU loss, and of those of the distributions and masks.
        masks: predict masks too.

    Source: Peng et al., D-FINE, ICLR 2025. Checked against Peterande/D-FINE 4a1f73a: outputs, assignments, every loss
    term, gradients; not against transformers, whose losses pair the logits of a layer with the sides of the next.
    Differs in running the encoder's box head on the selected tokens only, in masking padding where there is any, and in
    detections of boxes without an extent where theirs have a negative one; for the losses see
    ``DistributionCriterion``. With the designs of ``decoder``, checked against ``DEIMTransformer`` of
    Intellindust-AI-Lab/DEIMv2 0fff8d4 and ``ECTransformer`` of Intellindust-AI-Lab/EdgeCrafter 706d037.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 300,
        decoder: RefiningDecoderOptions = RefiningDecoderOptions(),
        denoising: DenoisingOptions = DenoisingOptions(mirrored=True),
        num_bins: int = 32,
        bin_scale: float = 4.0,
        max_detections: int = 300,
        supervision: UnitedSupervisionOptions = UnitedSupervisionOptions(class_loss="varifocal", united_matches=True),
        loss_weights: DistributionLossWeights = DistributionLossWeights(),
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
            reference_encoding=decoder.reference_encoding,
        )
        self.bins, num_layers = SideBins(num_bins, bin_scale), decoder.num_layers
        criterion = SetCriterion(make_class_loss(supervision.class_loss), HungarianMatcher(), loss_weights)
        self.criterion = DistributionCriterion(criterion, loss_weights, self.bins, united=supervision.united_matches)
        joining: Joining = "plain" if decoder.shares_boxes else "gated"
        self.layers = build_decoder_layers(decoder, hidden_dim, len(self.projections.levels), joining=joining)
        self.classes = nn.ModuleList(nn.Linear(hidden_dim, num_classes) for _ in range(num_layers))
        activation, size = decoder.activation, 4 * (num_bins + 1)
        self.initial_boxes = MLP(hidden_dim, hidden_dim, 4, 3, activation=activation)
        self.sides = nn.ModuleList(
            MLP(hidden_dim, hidden_dim, size, 3, activation=activation)
            for _ in range(1 if decoder.shares_boxes else num_layers)
        )
        self.qualities = nn.ModuleList(LocationQuality(activation=activation) for _ in range(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier around the selection and in the feed-forwards, even distributions."""
        reset_predictors((self.encoder_classes, *self.classes), (self.encoder_boxes, self.initial_boxes, *self.sides))
        self.reset_selection()
        for name, parameter in self.layers.named_parameters():
            if "feed_forward" in name and parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> DistributionOutput:
        """Predict; with ``targets`` from every layer, and from denoising queries too."""
        start = self.start_decoder(features, padding_mask, targets, valid_sizes)
        predictions, contents = decode_distributions(
            self.layers_to_run(targets),
            start.tokens,
            start.content,
            start.reference,
            positions=self.hold_positions(self.encode_references, start.reference),
            heads=self._heads(),
            every_layer=targets is not None,
            blocked=start.blocked,
            num_groups=start.num_groups,
        )
        output = DistributionOutput.of(predictions, start, *self.predict_masks(start, contents, targets))
        return output._replace(
            taught=self.teach(
                features, padding_mask, targets, valid_sizes, lambda queries: self._decode(queries, start.tokens)
            )
        )

    def _decode(
        self, start: QueryStart, tokens: LevelTokens
    ) -> tuple[Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        """Decode further queries to the logits and boxes of every layer."""
        predictions, _ = decode_distributions(
            self.layers,
            tokens,
            start.content,
            start.reference,
            positions=self.hold_positions(self.encode_references, start.reference),
            heads=self._heads(),
            every_layer=True,
            blocked=start.blocked,
        )
        return predictions.logits, predictions.boxes_cxcywh_norm

    def encode_references(self, reference: Float[Tensor, "b q 4"]) -> Float[Tensor, "b q d"]:
        """Encode center boxes as positions of queries, cut to [-10, 10]."""
        return super().encode_references(reference).clamp(-10, 10)

    @torch.no_grad()
    def predict_layers(
        self, contents: Sequence[Float[Tensor, "b q d"]], reference: Float[Tensor, "b q 4"]
    ) -> tuple[list[Float[Tensor, "b q 4"]], Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        """Predict from the contents that the decoder had after each layer; reference, logits and boxes of each."""
        refiner, references = SideRefiner(self._heads(), reference), [reference]
        for i, content in enumerate(contents):
            references.append(refiner.refine(i, content, predicts=True))
        layers = refiner.predictions()
        return references[:-1], layers.logits, layers.boxes_cxcywh_norm

    def criteria(self) -> list[SetCriterion]:
        """List the criteria of the head's losses."""
        return [self.criterion.criterion]

    def decode(self, output: QueryOutput) -> Decoded:
        """Decode the best (query, class) pairs; sides that went past each other are put together in their middle."""
        boxes = output.boxes_cxcywh_norm[-1]
        boxes = torch.cat((boxes[..., :2], boxes[..., 2:].clamp(min=0)), -1)
        return decode_pairs(output.logits[-1], boxes, output.valid_sizes, self.max_detections, output.masks)

    def measure_sides_std(self, output: DistributionOutput) -> Float[Tensor, "b n 4"]:
        """Measure the standard deviations of the sides of the detections, in pixels of the network input."""
        std = self.bins.measure_std(output.initial_boxes_cxcywh_norm, output.side_logits[-1])
        return take_in_pixels(std, rank_pairs(output.logits[-1], self.max_detections).queries, output.valid_sizes)

    def explain(self, output: Any, recorded: Recorded, detection: int) -> QueryMechanism:
        """Explain a detection by its token and the decoder's layers, and by how far its sides may be off."""
        mechanism, std = super().explain(output, recorded, detection), self.measure_sides_std(output)
        moved = std[0, detection].float().cpu()
        return replace(mechanism, side_range=mechanism.box + torch.stack((-moved, moved)))

    def assign(self, output: DistributionOutput, targets: Sequence[Targets]) -> DistributionOutput:
        """Assign the predictions of every layer to objects; ``loss`` goes on from there."""
        objects = self.normalize_targets(targets) * output.num_groups
        return output._replace(assignment=self.criterion.assign(*output.every_group, objects, output.masks))

    def count_assigned(self, output: DistributionOutput) -> int:
        """Count the queries that a layer, or the encoder, assigned to an object."""
        assert output.assignment is not None
        return len(output.assignment.united.query)

    def loss(
        self, output: DistributionOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted loss terms of every decoder layer, of the selection and of denoising."""
        if output.assignment is None:
            output = self.assign(output, targets)
        normalized, of_step, totals = self.normalize_targets(targets), totals, totals or LossTotals.of(targets)
        if totals.matches is None:
            totals = totals._replace(matches=self.count_assigned(output))
        (layers, selected), assignment = output.every_group, cast(Assignment, output.assignment)
        of_groups = totals.of_groups(output.num_groups)
        objects = normalized * output.num_groups
        terms = self.criterion(layers, selected, assignment, objects, of_groups, output.masks)
        if output.denoising is not None and output.noised is not None:
            matches, groups = output.denoising.matches, output.denoising.num_groups
            counts = self.criterion.count(layers, of_groups)
            noised = output.noised, matches, groups, normalized, totals, counts, output.noised_masks
            terms |= self.criterion.noised(*noised)
        return terms | self.taught_losses(output, targets, normalized, of_step, self.criterion.criterion)

    def _heads(self) -> DistributionHeads:
        return DistributionHeads(self.classes, self.sides, self.qualities, self.initial_boxes, self.bins)
