"""RT-DETR's head: query selection, deformable decoder with iterative refinement, denoising."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.layers.mlp import MLP
from boxwright.queries.class_losses import ClassLossName, FocalLoss, make_class_loss
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms, normalize_targets
from boxwright.queries.decoder import build_decoder_layers, decode_queries, predict_layers, reset_predictors
from boxwright.queries.denoising import DenoisingQueries
from boxwright.queries.encoder_queries import EncoderQueries
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import DecoderOptions, DenoisingOptions, QueryLossWeights
from boxwright.structures import Features, LossTotals, Spec, Targets

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


class RTDETR(EncoderQueries):
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
        query_selection: ``uncertainty_minimal`` trains the encoder's scores as the decoder's, on how well the boxes
            fit, ``vanilla`` on the classes alone (focal loss).
        max_detections: most (query, class) pairs that are detected in an image.
        class_loss: of the decoder, and of selected tokens; ``make_class_loss`` lists them.
        loss_weights: of class, L1 and GIoU loss.

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
        class_loss: ClassLossName = "varifocal",
        loss_weights: QueryLossWeights = QueryLossWeights(),
    ) -> None:
        super().__init__(
            in_spec,
            num_classes,
            hidden_dim=hidden_dim,
            num_queries=num_queries,
            decoder=decoder,
            eval_layers=eval_layers,
            denoising=denoising,
            max_detections=max_detections,
            project_every_level=True,
        )
        self.look_forward_twice = look_forward_twice
        loss = make_class_loss(class_loss)
        self.criterion = self.encoder_criterion = SetCriterion(loss, HungarianMatcher(), loss_weights)
        if query_selection == "vanilla":
            self.encoder_criterion = SetCriterion(FocalLoss(), HungarianMatcher(), loss_weights)
        self.layers = build_decoder_layers(decoder, hidden_dim, len(self.projections.levels))
        self.classes = nn.ModuleList(nn.Linear(hidden_dim, num_classes) for _ in range(decoder.num_layers))
        self.boxes = nn.ModuleList(
            MLP(hidden_dim, hidden_dim, 4, 3, activation=decoder.activation) for _ in range(decoder.num_layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier around the selection, class and box heads as ``reset_predictors``."""
        reset_predictors((self.encoder_classes, *self.classes), (self.encoder_boxes, *self.boxes))
        self.reset_selection()

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> RTDETROutput:
        """Predict; with ``targets`` from every layer, and from denoising queries too."""
        start = self.start_decoder(features, padding_mask, targets, valid_sizes)
        logits, boxes = decode_queries(
            self.layers_to_run(targets),
            start.tokens,
            start.content,
            start.reference,
            positions=self.encode_references,
            classes=self.classes,
            boxes=self.boxes,
            every_layer=targets is not None,
            refinement="twice" if self.look_forward_twice else "once",
            blocked=start.blocked,
        )
        selection, noised = start.selection, start.num_noised
        return RTDETROutput(
            logits[:, :, noised:],
            boxes[:, :, noised:],
            start.valid_sizes,
            selection.logits,
            selection.boxes_logit.sigmoid(),
            logits[:, :, :noised],
            boxes[:, :, :noised],
            start.denoising,
            selection.tokens,
        )

    def predict_layers(
        self, contents: Sequence[Float[Tensor, "b q d"]], reference: Float[Tensor, "b q 4"]
    ) -> tuple[list[Float[Tensor, "b q 4"]], Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        """Predict from the contents that the decoder had after each layer; reference, logits and boxes of each."""
        return predict_layers(contents, reference, classes=self.classes, boxes=self.boxes, refinement="once")

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
