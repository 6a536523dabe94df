"""Deformable DETR's head: a deformable decoder; with iterative refinement; with queries from the encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.detections import Detections
from boxwright.layers.deformable_attention import DeformableDecoderLayer
from boxwright.layers.deformable_transformer import (
    LevelTokens,
    compute_cell_centers,
    encode_box_sine,
    flatten_levels,
    level_projection,
    reset_transformer,
)
from boxwright.layers.mlp import MLP
from boxwright.layers.option_checks import check_counts, check_hidden_dim
from boxwright.layers.predictions import run_in_full_precision
from boxwright.ops.boxes import inverse_sigmoid
from boxwright.ops.deformable import Sampling
from boxwright.queries.class_losses import FocalLoss
from boxwright.queries.criterion import SetCriterion, named_terms, normalized_targets
from boxwright.queries.decode import sigmoid_detections
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.selection import SelectionQuality, selection_quality
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets, head_levels

__all__ = ["DeformableDETR"]


class DeformableDETROutput(NamedTuple):
    """What the head predicts. Boxes are center boxes relative to the image's content, in [0, 1].

    ``logits`` and ``boxes_cxcywh_norm`` are the prediction, with a decoder layer in front: every layer with targets and
    auxiliary losses, else the last one. ``selected_*`` are the encoder's best proposals, which the decoder started
    from, and ``proposal_*``, with targets, all of them; None without two stages.
    """

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]
    selected_logits: Float[Tensor, "b q k"] | None
    selected_boxes_cxcywh_norm: Float[Tensor, "b q 4"] | None
    proposal_logits: Float[Tensor, "b t k"] | None
    proposal_boxes_cxcywh_norm: Float[Tensor, "b t 4"] | None

    def prediction(self) -> tuple[Float[Tensor, "b q k"], Float[Tensor, "b q 4"]]:
        """Logits and boxes of the last decoder layer."""
        return self.logits[-1], self.boxes_cxcywh_norm[-1]


class Proposals(NamedTuple):
    """The encoder's answers at all places, or at none, and at the selected ones; boxes before the sigmoid."""

    logits: Float[Tensor, "b t k"] | None
    boxes_logit: Float[Tensor, "b t 4"] | None
    selected_logits: Float[Tensor, "b q k"]
    selected_boxes_logit: Float[Tensor, "b q 4"]


class Queries(NamedTuple):
    """What the decoder starts from: contents, their positions, and points (r = 2) or boxes (r = 4) to look around.

    The content is contiguous: of a view, attention fixes the batch of an export (torch 2.15).
    """

    content: Float[Tensor, "b q d"]
    positions: Float[Tensor, "b q d"]
    reference: Float[Tensor, "b q r"]


class DeformableDETR(nn.Module):
    """Queries that look around a point each; with ``refine`` around a box, which every layer corrects.

    With ``two_stage`` the best places of the encoder become the queries.

    Args:
        in_spec: the levels that come in, fine to coarse; those that are not ``hidden_dim`` wide are projected.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of 4 and of ``num_heads``.
        num_queries: how many objects can be found in an image.
        num_layers: decoder layers.
        num_heads: heads of both attentions.
        num_points: samples per head and level.
        feedforward_dim: width of the decoder's feed-forward.
        dropout: in the decoder, in [0, 1).
        sampling: which form of the sampling runs; ``auto`` is the fastest on the device.
        refine: each layer corrects the boxes of the layer before, with class and box heads of its own.
        two_stage: queries come from the encoder; needs ``refine``.
        auxiliary_losses: every layer is trained on the objects, not only the last; ``refine`` needs it.
        max_detections: how many (query, class) pairs ``postprocess`` returns.
        class_weight: of the focal loss.
        l1_weight: of the L1 loss.
        giou_weight: of the GIoU loss.

    Source: Zhu et al., Deformable DETR, ICLR 2021. Checked against transformers' DeformableDetrForObjectDetection and
    fundamentalvision/Deformable-DETR 11169a6: outputs, assignments, losses, gradients. Where paper and code disagree it
    is the code: first sizes of about 0.12 (sigmoid of -2) instead of 0.1, sampling offsets of refined boxes that are
    scaled by the box and not at the start, and proposals that are ranked by the logit of class 0, trained on all
    objects as if they were of that class. Differs in sharing the heads without copies in checkpoints, and in running
    the box head of the proposals on the selected ones only, where there are no targets.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 300,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        sampling: Sampling = "auto",
        refine: bool = False,
        two_stage: bool = False,
        auxiliary_losses: bool = True,
        max_detections: int = 100,
        class_weight: float = 2.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
    ) -> None:
        super().__init__()
        counts = {"num_classes": num_classes, "num_queries": num_queries, "num_layers": num_layers}
        check_counts(counts | {"num_heads": num_heads, "num_points": num_points})
        check_hidden_dim(hidden_dim, num_heads, sine=True)
        _check_variant(refine=refine, two_stage=two_stage, auxiliary_losses=auxiliary_losses)
        self.levels = head_levels(in_spec)
        self.hidden_dim, self.num_queries = hidden_dim, num_queries
        self.refine, self.two_stage = refine, two_stage
        self.auxiliary_losses, self.max_detections = auxiliary_losses, max_detections
        # For counting only: run all heads of all layers and places, as the published graph does.
        self.count_as_published = False
        weights = {"class_weight": class_weight, "l1_weight": l1_weight, "giou_weight": giou_weight}
        self.criterion = SetCriterion(class_loss=FocalLoss(), matcher=HungarianMatcher(), **weights)
        others = [name for name in self.levels if in_spec[name].channels != hidden_dim]
        self.projections = nn.ModuleDict(
            {name: level_projection(in_spec[name].channels, hidden_dim) for name in others}
        )
        self._build_query_layers(hidden_dim)
        layer = partial(
            DeformableDecoderLayer, num_levels=len(self.levels), hidden_dim=feedforward_dim, dropout=dropout
        )
        self.layers = nn.ModuleList(
            layer(hidden_dim, num_heads=num_heads, num_points=num_points, sampling=sampling) for _ in range(num_layers)
        )
        # One pair for all layers, or one per layer; then one for the proposals.
        num_heads_out = num_layers + two_stage if refine else 1
        classes, boxes = nn.Linear(hidden_dim, num_classes), MLP(hidden_dim, hidden_dim, 4, 3)
        self.classes = nn.ModuleList(deepcopy(classes) for _ in range(num_heads_out))
        self.boxes = nn.ModuleList(deepcopy(boxes) for _ in range(num_heads_out))
        self.reset_parameters()

    def _build_query_layers(self, hidden_dim: int) -> None:
        """What makes the decoder's queries of proposals, or the learned ones."""
        if self.two_stage:
            self.encoder_output = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim))
            self.proposal_queries = nn.Sequential(
                nn.Linear(2 * hidden_dim, 2 * hidden_dim), nn.LayerNorm(2 * hidden_dim)
            )
        else:
            self.queries = nn.Embedding(self.num_queries, 2 * hidden_dim)  # position, content
            self.reference_points = nn.Linear(hidden_dim, 2)

    def reset_parameters(self) -> None:
        """As published: Xavier for the transformer; probability 0.01 for each class; boxes start at their references.

        A point has no size, so that the head that answers to points starts with sides of sigmoid(-2).
        """
        reset_transformer(self.layers)
        if self.two_stage:
            reset_transformer(self.encoder_output)
            reset_transformer(self.proposal_queries)
        else:
            nn.init.xavier_uniform_(self.reference_points.weight)
            nn.init.zeros_(self.reference_points.bias)
        for i, (classes, boxes) in enumerate(zip(self.classes, self.boxes, strict=True)):
            assert isinstance(classes, nn.Linear)
            assert isinstance(boxes, MLP)
            last = boxes.layers[-1]
            assert isinstance(last, nn.Linear)
            nn.init.constant_(classes.bias, -math.log(99))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            if i == 0 and not self.two_stage:
                nn.init.constant_(last.bias[2:], -2.0)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> DeformableDETROutput:
        """Predict; with ``targets`` also what ``loss`` needs: every layer's prediction and every proposal."""
        maps = [features[name] for name in self.levels]
        maps = [
            self.projections[name](level) if name in self.projections else level
            for name, level in zip(self.levels, maps, strict=True)
        ]
        tokens = flatten_levels(maps, padding_mask)
        every_place = targets is not None or self.count_as_published
        proposals = self._propose(tokens, every_place) if self.two_stage else None
        queries = self._learned_queries(tokens.memory) if proposals is None else self._proposed_queries(proposals)
        every_layer = (targets is not None and self.auxiliary_losses) or self.count_as_published
        logits, boxes = self._decode(tokens, queries, every_layer)
        if proposals is None:
            return DeformableDETROutput(logits, boxes, None, None, None, None)
        return DeformableDETROutput(
            logits,
            boxes,
            proposals.selected_logits,
            proposals.selected_boxes_logit.sigmoid(),
            proposals.logits,
            None if proposals.boxes_logit is None else proposals.boxes_logit.sigmoid(),
        )

    def loss(
        self, output: DeformableDETROutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted loss terms of every decoder layer and of the proposals.

        Args:
            output: made with the same targets.
            targets: one per image.
            totals: of the whole optimizer step; of these targets where None.
        """
        wanted, totals = normalized_targets(targets), totals or LossTotals.of(targets)
        names = [*(f"_{i}" for i in range(len(output.logits) - 1)), ""]
        terms = named_terms(self.criterion(output.logits, output.boxes_cxcywh_norm, wanted, totals), names)
        if output.proposal_logits is not None and output.proposal_boxes_cxcywh_norm is not None:
            objects = [target._replace(labels=torch.zeros_like(target.labels)) for target in wanted]
            proposals = output.proposal_logits[None], output.proposal_boxes_cxcywh_norm[None]
            terms |= named_terms(self.criterion(*proposals, objects, totals), ["_encoder"])
        return terms

    def selection_quality(self, output: DeformableDETROutput, targets: Sequence[Targets]) -> SelectionQuality | None:
        """How good the proposals are that the encoder selected; None without two stages."""
        if output.selected_logits is None or output.selected_boxes_cxcywh_norm is None:
            return None
        # The first logit stands for any object.
        scores = output.selected_logits[..., :1]
        return selection_quality(scores, output.selected_boxes_cxcywh_norm, normalized_targets(targets))

    def postprocess(self, output: DeformableDETROutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """The best (query, class) pairs of each image, in pixels of the original image; ties keep their order."""
        return sigmoid_detections(*output.prediction(), image_sizes, self.max_detections)

    def _propose(self, tokens: LevelTokens, every_place: bool) -> Proposals:
        """Score every place as an object, keep the best ``num_queries``."""
        start, valid = _proposal_boxes(tokens)
        memory = self.encoder_output(tokens.memory * valid)
        classes, boxes = self.classes[-1], self.boxes[-1]
        assert isinstance(classes, nn.Linear)
        count = min(self.num_queries, memory.shape[1])
        if every_place:
            logits = classes(memory)
            best = logits[..., 0].detach().topk(count, dim=1).indices
            boxes_logit = run_in_full_precision(boxes, memory) + start
            return Proposals(logits, boxes_logit, _rows(logits, best), _rows(boxes_logit, best))
        scores = F.linear(memory, classes.weight[:1], classes.bias[:1])
        best = scores[..., 0].detach().topk(count, dim=1).indices
        selected = _rows(memory, best)
        return Proposals(None, None, classes(selected), run_in_full_precision(boxes, selected) + _rows(start, best))

    def _proposed_queries(self, proposals: Proposals) -> Queries:
        reference = proposals.selected_boxes_logit.detach().sigmoid()
        encoded = encode_box_sine(reference, self.hidden_dim // 2).to(proposals.selected_logits.dtype)
        positions, content = self.proposal_queries(encoded).chunk(2, -1)
        return Queries(content.contiguous(), positions, reference)

    def _learned_queries(self, memory: Float[Tensor, "b t d"]) -> Queries:
        # Looked up, because a slice of a parameter asks for gradients even where there are none (torch 2.15).
        every_query = torch.arange(self.num_queries, device=self.queries.weight.device)
        positions, content = self.queries(every_query).chunk(2, -1)
        reference = run_in_full_precision(self.reference_points, positions).sigmoid()
        return Queries(*(x.repeat(memory.shape[0], 1, 1) for x in (content, positions, reference)))

    def _decode(
        self, tokens: LevelTokens, queries: Queries, every_layer: bool
    ) -> tuple[Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        content, reference = queries.content, queries.reference
        logits: list[Tensor] = []
        boxes: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            ratios = tokens.valid_ratios.repeat(1, 1, reference.shape[-1] // 2)
            sampled = reference[:, :, None] * ratios[:, None]  # b q l r
            content = layer(content, queries.positions, sampled, tokens.memory, tokens.shapes, padding=tokens.padding)
            asked = every_layer or i == len(self.layers) - 1
            head = i if self.refine else 0
            if asked:
                logits.append(self.classes[head](content))
            if asked or self.refine:
                start = inverse_sigmoid(reference)
                # A point moves; the size is the head's own.
                moved = run_in_full_precision(self.boxes[head], content) + F.pad(start, (0, 4 - start.shape[-1]))
                boxes.append(moved.sigmoid())
            if self.refine:
                reference = boxes[-1].detach()
        return torch.stack(logits), torch.stack(boxes[-len(logits) :])


def _check_variant(*, refine: bool, two_stage: bool, auxiliary_losses: bool) -> None:
    if two_stage and not refine:
        raise ValueError("two_stage proposes boxes, which only refine can start from: set refine to true as well")
    if refine and not auxiliary_losses:
        raise ValueError("refine needs auxiliary_losses: nothing else trains the boxes of the layers before the last")


def _rows(x: Float[Tensor, "b t d"], index: Int[Tensor, "b q"]) -> Float[Tensor, "b q d"]:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _proposal_boxes(tokens: LevelTokens) -> tuple[Float[Tensor, "b t 4"], Bool[Tensor, "b t 1"]]:
    """A box at every place, 0.05 * 2^level wide and high, before the sigmoid; and whether it can be used.

    Those that cannot, near the border or on padding, become infinite.
    """
    centers = compute_cell_centers(tokens)
    sides = [centers.new_full((h * w, 2), 0.05 * 2**i) for i, (h, w) in enumerate(tokens.shapes)]
    side = torch.cat(sides).expand(centers.shape[0], -1, 2)
    boxes = torch.cat((centers, side), -1).expand(tokens.memory.shape[0], -1, -1)
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    if tokens.padding is not None:
        valid = valid & ~tokens.padding[..., None]
    return torch.where(valid, torch.log(boxes / (1 - boxes)), torch.inf), valid
