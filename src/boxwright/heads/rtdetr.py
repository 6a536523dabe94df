"""RT-DETR's head: query selection, deformable decoder with iterative refinement, denoising."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.detections import Detections
from boxwright.layers.conv import ConvNorm
from boxwright.layers.deformable_attention import DeformableDecoderLayer
from boxwright.layers.mlp import MLP
from boxwright.layers.option_checks import check_counts, check_hidden_dim
from boxwright.layers.padding import resize_mask, valid_ratio
from boxwright.layers.predictions import run_in_full_precision
from boxwright.layers.tokens import to_tokens
from boxwright.ops.boxes import at_least_float32, inverse_sigmoid
from boxwright.ops.deformable import Sampling
from boxwright.queries.class_losses import FocalLoss, VarifocalLoss
from boxwright.queries.criterion import SetCriterion, named_terms, normalized_targets
from boxwright.queries.decode import sigmoid_detections
from boxwright.queries.denoising import DenoisingQueries, denoising_queries
from boxwright.queries.matching import HungarianMatcher
from boxwright.queries.selection import SelectionQuality, selection_quality
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets, head_levels

__all__ = ["RTDETR"]

QuerySelection = Literal["uncertainty_minimal", "vanilla"]


class RTDETROutput(NamedTuple):
    """What the head predicts. Boxes are center boxes relative to the image's content, in [0, 1].

    ``logits`` and ``boxes_cxcywh_norm`` are the prediction, with a decoder layer in front: every layer with targets,
    the last one without. ``selected_*`` are the encoder's: what the decoder started from. ``noised_*`` are the decoder
    layers' answers to the denoising queries, with no queries where there are none. ``denoising`` is what was noised,
    None without targets or denoising.
    """

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]
    selected_logits: Float[Tensor, "b q k"]
    selected_boxes_cxcywh_norm: Float[Tensor, "b q 4"]
    noised_logits: Float[Tensor, "l b d k"]
    noised_boxes_cxcywh_norm: Float[Tensor, "l b d 4"]
    denoising: DenoisingQueries | None

    def prediction(self) -> tuple[Float[Tensor, "b q k"], Float[Tensor, "b q 4"]]:
        """Logits and boxes of the last decoder layer."""
        return self.logits[-1], self.boxes_cxcywh_norm[-1]


class Tokens(NamedTuple):
    """All levels as one sequence, with what is known of each place."""

    memory: Float[Tensor, "b t d"]
    shapes: list[tuple[int, int]]
    padding: Bool[Tensor, "b t"] | None
    valid_ratios: Float[Tensor, "b l 2"] | None


class Selection(NamedTuple):
    """The encoder's best places: what the decoder starts from."""

    content: Float[Tensor, "b q d"]
    logits: Float[Tensor, "b q k"]
    boxes_logit: Float[Tensor, "b q 4"]


class RTDETR(nn.Module):
    """The best encoder tokens become queries, which a deformable decoder refines layer by layer.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of ``num_heads``.
        num_queries: how many objects can be found in an image.
        num_layers: decoder layers.
        eval_layers: decoder layers that prediction uses; all where None.
        num_heads: heads of both attentions.
        num_points: samples per head and level.
        feedforward_dim: width of the decoder's feed-forward.
        dropout: in the decoder, in [0, 1).
        sampling: the body of the sampling operator; ``auto`` takes the fastest of the device.
        num_denoising: objects to recover from noise per image, over all groups; 0 for none.
        label_noise: twice the probability that a noised object has another label.
        box_noise: how far a noised corner moves, in half sides.
        look_forward_twice: a layer's box loss also trains the box of the layer before, as in the authors' code.
        query_selection: ``uncertainty_minimal`` trains the encoder's scores on how well the boxes fit (varifocal loss),
            ``vanilla`` on the classes alone (focal loss).
        max_detections: how many (query, class) pairs ``postprocess`` returns.
        class_weight: of the varifocal loss.
        l1_weight: of the L1 loss.
        giou_weight: of the GIoU loss.

    Source: Zhao et al., RT-DETR, CVPR 2024. Checked against transformers' RTDetrForObjectDetection (outputs,
    assignments, losses, gradients; it leaves out the second look forward) and lyuwenyu/RT-DETR 068dfde. Differs in
    running the encoder's box head on the selected tokens only, and in masking padding where there is any.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 300,
        num_layers: int = 6,
        eval_layers: int | None = None,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.0,
        sampling: Sampling = "auto",
        num_denoising: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        look_forward_twice: bool = True,
        query_selection: QuerySelection = "uncertainty_minimal",
        max_detections: int = 300,
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
    ) -> None:
        super().__init__()
        counts = {"num_classes": num_classes, "num_queries": num_queries, "num_layers": num_layers}
        check_counts(counts | {"num_heads": num_heads})
        check_hidden_dim(hidden_dim, num_heads)
        _check_eval_layers(eval_layers, num_layers)
        self.levels = head_levels(in_spec)
        self.num_classes, self.num_queries = num_classes, num_queries
        self.eval_layers = eval_layers or num_layers
        self.num_denoising, self.label_noise, self.box_noise = num_denoising, label_noise, box_noise
        self.look_forward_twice, self.max_detections = look_forward_twice, max_detections
        # For counting only: run the encoder's box head on every token, as the published graph does.
        self.count_as_published = False
        weights = {"class_weight": class_weight, "l1_weight": l1_weight, "giou_weight": giou_weight}
        self.criterion, self.encoder_criterion = _criteria(query_selection, weights)

        projections = {name: ConvNorm(in_spec[name].channels, hidden_dim, 1) for name in self.levels}
        self.projections = nn.ModuleDict(projections)
        self.encoder_output = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim))
        self.encoder_classes = nn.Linear(hidden_dim, num_classes)
        self.encoder_boxes = MLP(hidden_dim, hidden_dim, 4, 3)
        self.query_positions = MLP(4, 2 * hidden_dim, hidden_dim, 2)
        # The last row, for places without object, stays zero.
        self.denoising_classes = nn.Embedding(num_classes + 1, hidden_dim, padding_idx=num_classes)
        # Without denoising it is in no graph, and processes would wait for its gradient.
        self.denoising_classes.requires_grad_(num_denoising > 0)
        layer = partial(
            DeformableDecoderLayer, num_levels=len(self.levels), hidden_dim=feedforward_dim, dropout=dropout
        )
        self.layers = nn.ModuleList(
            layer(hidden_dim, num_heads=num_heads, num_points=num_points, sampling=sampling) for _ in range(num_layers)
        )
        self.classes = nn.ModuleList(nn.Linear(hidden_dim, num_classes) for _ in range(num_layers))
        self.boxes = nn.ModuleList(MLP(hidden_dim, hidden_dim, 4, 3) for _ in range(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Every class starts at probability 0.01; every box starts as its reference."""
        for linear in (self.encoder_classes, *self.classes):
            nn.init.constant_(linear.bias, -math.log(99))
        for mlp in (self.encoder_boxes, *self.boxes):
            nn.init.zeros_(mlp.layers[-1].weight)
            nn.init.zeros_(mlp.layers[-1].bias)
        for module in (*self.encoder_output.modules(), *self.query_positions.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> RTDETROutput:
        """Predict; with ``targets`` also what ``loss`` needs: every layer's prediction and the denoising queries."""
        tokens = self._tokens(features, padding_mask)
        selection = self._select(tokens)
        content, reference_logit = selection.content, selection.boxes_logit.detach()
        denoising, blocked, noised = None, None, 0
        if targets is not None and self.num_denoising > 0:
            denoising = denoising_queries(
                normalized_targets(targets),
                self.num_classes,
                num_denoising=self.num_denoising,
                label_noise=self.label_noise,
                box_noise=self.box_noise,
            )
            noised = denoising.labels.shape[1]
            blocked = denoising.blocked(content.shape[1])
            content = torch.cat((self.denoising_classes(denoising.labels).to(content.dtype), content), 1)
            reference_logit = torch.cat((inverse_sigmoid(denoising.boxes_cxcywh_norm), reference_logit), 1)

        every_layer = targets is not None
        logits, boxes = self._decode(tokens, content, reference_logit.sigmoid(), blocked, every_layer)
        return RTDETROutput(
            logits[:, :, noised:],
            boxes[:, :, noised:],
            selection.logits,
            selection.boxes_logit.sigmoid(),
            logits[:, :, :noised],
            boxes[:, :, :noised],
            denoising,
        )

    def loss(
        self, output: RTDETROutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted loss terms of every decoder layer, of the encoder's selection and of the denoising queries.

        Args:
            output: made with the same targets.
            targets: one per image.
            totals: of the whole optimizer step; of these targets where None.
        """
        wanted, totals = normalized_targets(targets), totals or LossTotals.of(targets)
        decoder = len(output.logits)
        names = [*(f"_{i}" for i in range(decoder - 1)), ""]
        logits, boxes = output.logits, output.boxes_cxcywh_norm
        selected = output.selected_logits[None], output.selected_boxes_cxcywh_norm[None]
        if self.encoder_criterion is self.criterion:
            # Together, so that all costs are computed and copied once.
            logits, boxes = torch.cat((logits, selected[0])), torch.cat((boxes, selected[1]))
            terms = named_terms(self.criterion(logits, boxes, wanted, totals), [*names, "_encoder"])
        else:
            terms = named_terms(self.criterion(logits, boxes, wanted, totals), names)
            terms |= named_terms(self.encoder_criterion(*selected, wanted, totals), ["_encoder"])
        if output.denoising is not None:
            noised = self.criterion(
                output.noised_logits,
                output.noised_boxes_cxcywh_norm,
                wanted,
                totals,
                output.denoising.matches.repeated(decoder),
                output.denoising.num_groups,
            )
            terms |= named_terms(noised, [f"_denoising_{i}" for i in range(decoder)])
        return terms

    def selection_quality(self, output: RTDETROutput, targets: Sequence[Targets]) -> SelectionQuality:
        """How good the queries are that the encoder selected."""
        return selection_quality(output.selected_logits, output.selected_boxes_cxcywh_norm, normalized_targets(targets))

    def postprocess(self, output: RTDETROutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """The best (query, class) pairs of each image, in pixels of the original image; ties keep their order."""
        return sigmoid_detections(*output.prediction(), image_sizes, self.max_detections)

    def _tokens(self, features: Features, padding_mask: Tensor | None) -> Tokens:
        maps = [self.projections[name](features[name]) for name in self.levels]
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        memory = torch.cat([to_tokens(x) for x in maps], 1)  # b (l h w) d
        if padding_mask is None:
            return Tokens(memory, shapes, None, None)
        masks = [resize_mask(padding_mask, h, w) for h, w in shapes]
        padding = torch.cat([mask.flatten(1) for mask in masks], 1)
        return Tokens(memory, shapes, padding, torch.stack([valid_ratio(mask) for mask in masks], 1))

    def _select(self, tokens: Tokens) -> Selection:
        """Score every place, keep the best ``num_queries``."""
        anchors = _anchors(tokens)
        valid = ((anchors > 0.01) & (anchors < 0.99)).all(-1, keepdim=True)
        if tokens.padding is not None:
            valid = valid & ~tokens.padding[..., None]
        memory = self.encoder_output(tokens.memory * valid)
        logits = self.encoder_classes(memory)
        count = min(self.num_queries, memory.shape[1])
        best = logits.detach().amax(-1).topk(count, dim=1).indices
        content = _rows(memory, best)
        start = torch.where(valid, torch.log(anchors / (1 - anchors)), torch.inf).expand(memory.shape[0], -1, -1)
        if self.count_as_published:
            delta = _rows(run_in_full_precision(self.encoder_boxes, memory), best)
        else:
            delta = run_in_full_precision(self.encoder_boxes, content)
        return Selection(content.detach(), _rows(logits, best), delta + _rows(start, best))

    def _decode(
        self,
        tokens: Tokens,
        content: Tensor,
        reference: Tensor,
        blocked: Tensor | None,
        every_layer: bool,
    ) -> tuple[Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
        num_layers = len(self.layers) if every_layer else self.eval_layers
        logits: list[Tensor] = []
        boxes: list[Tensor] = []
        previous = reference
        for i in range(num_layers):
            positions = self.query_positions(reference)
            sampled = reference[:, :, None]  # b q 1 4: the same on every level
            if tokens.valid_ratios is not None:
                sampled = sampled * tokens.valid_ratios.repeat(1, 1, 2)[:, None]
            content = self.layers[i](
                content,
                positions,
                sampled,
                tokens.memory,
                tokens.shapes,
                padding=tokens.padding,
                blocked=blocked,
            )
            delta = run_in_full_precision(self.boxes[i], content)
            refined = (delta + inverse_sigmoid(reference)).sigmoid()
            if every_layer or i == num_layers - 1:
                logits.append(self.classes[i](content))
                # The same value, through which the gradient reaches the layer before as well.
                twice = self.look_forward_twice and every_layer and i > 0
                boxes.append((delta + inverse_sigmoid(previous)).sigmoid() if twice else refined)
            previous, reference = refined, refined.detach()
        return torch.stack(logits), torch.stack(boxes)


def _check_eval_layers(eval_layers: int | None, num_layers: int) -> None:
    if eval_layers is not None and not 1 <= eval_layers <= num_layers:
        raise ValueError(f"eval_layers is between 1 and num_layers ({num_layers}), not {eval_layers}")


def _criteria(query_selection: QuerySelection, weights: dict[str, float]) -> tuple[SetCriterion, SetCriterion]:
    """Of the decoder, and of what the encoder selects: one and the same, unless their class losses differ."""
    decoder = SetCriterion(class_loss=VarifocalLoss(), matcher=HungarianMatcher(), **weights)
    if query_selection == "vanilla":
        return decoder, SetCriterion(class_loss=FocalLoss(), matcher=HungarianMatcher(), **weights)
    return decoder, decoder


def _rows(x: Float[Tensor, "b t d"], index: Int[Tensor, "b q"]) -> Float[Tensor, "b q d"]:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _anchors(tokens: Tokens) -> Float[Tensor, "b t 4"]:
    """A center box at every place, relative to the image's content: 0.05 * 2^level wide and high."""
    device = tokens.memory.device
    anchors = []
    for i, (h, w) in enumerate(tokens.shapes):
        y = (torch.arange(h, device=device, dtype=torch.float32) + 0.5) / h
        x = (torch.arange(w, device=device, dtype=torch.float32) + 0.5) / w
        centers = torch.stack((x.expand(h, w), y[:, None].expand(h, w)), -1).view(1, h * w, 2)
        if tokens.valid_ratios is not None:
            centers = centers / tokens.valid_ratios[:, i, None]
        anchors.append(torch.cat((centers, torch.full_like(centers, 0.05 * 2**i)), -1))
    return torch.cat(anchors, 1).to(at_least_float32(tokens.memory).dtype)
