"""RT-DETR's head: query selection, deformable decoder with iterative refinement, denoising."""

from __future__ import annotations

from typing import Literal

from torch import nn

from boxwright.layers.mlp import MLP
from boxwright.queries.class_losses import FocalLoss, make_class_loss
from boxwright.queries.criterion import SetCriterion
from boxwright.queries.decoder import build_decoder_layers, reset_predictors
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.options import (
    DenoisingOptions,
    QueryLossWeights,
    RefiningDecoderOptions,
    UnitedSupervisionOptions,
)
from boxwright.queries.refined_queries import RefinedQueries
from boxwright.structures import Spec

__all__ = ["RTDETR"]


class RTDETR(RefinedQueries):
    """Selection of the best encoder tokens as queries, which a deformable decoder refines layer by layer.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of the decoder's ``num_heads``.
        num_queries: most objects that are detected in an image.
        decoder: size of the decoder.
        denoising: noised objects that the decoder is trained to recover.
        look_forward_twice: a layer's box loss also trains the box of the layer before, as in the authors' code.
        query_selection: ``uncertainty_minimal`` trains the encoder's scores as the decoder's, on how well the boxes
            fit, ``vanilla`` on the classes alone (focal loss).
        max_detections: most (query, class) pairs that are detected in an image.
        supervision: what the decoder's predictions learn from, and selected tokens.
        loss_weights: of class, L1 and GIoU loss, and of those of masks.
        masks: predict masks too.

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
        decoder: RefiningDecoderOptions = RefiningDecoderOptions(),
        denoising: DenoisingOptions = DenoisingOptions(),
        look_forward_twice: bool = True,
        query_selection: Literal["uncertainty_minimal", "vanilla"] = "uncertainty_minimal",
        max_detections: int = 300,
        supervision: UnitedSupervisionOptions = UnitedSupervisionOptions(class_loss="varifocal"),
        loss_weights: QueryLossWeights = QueryLossWeights(),
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
            project_every_level=True,
            reference_encoding=decoder.reference_encoding,
        )
        self.refinement = "twice" if look_forward_twice else "once"
        loss = make_class_loss(supervision.class_loss)
        self.criterion = self.encoder_criterion = SetCriterion(loss, HungarianMatcher(), loss_weights)
        if query_selection == "vanilla":
            self.encoder_criterion = SetCriterion(FocalLoss(), HungarianMatcher(), loss_weights)
        self.layers = build_decoder_layers(decoder, hidden_dim, len(self.projections.levels))
        self.classes = nn.ModuleList(nn.Linear(hidden_dim, num_classes) for _ in range(decoder.num_layers))
        self.boxes = nn.ModuleList(
            MLP(hidden_dim, hidden_dim, 4, 3, activation=decoder.activation)
            for _ in range(1 if decoder.shares_boxes else decoder.num_layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier around the selection, class and box heads as ``reset_predictors``."""
        reset_predictors((self.encoder_classes, *self.classes), (self.encoder_boxes, *self.boxes))
        self.reset_selection()
