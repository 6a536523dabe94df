"""The deformable decoder with iterative refinement, and the heads of its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.deformable_attention import DeformableDecoderLayer, Joining
from boxwright.layers.mlp import MLP
from boxwright.layers.predictions import run_in_full_precision
from boxwright.layers.tokens import LevelTokens
from boxwright.ops.box_deltas import move_boxes
from boxwright.ops.boxes import inverse_sigmoid
from boxwright.queries.options import DecoderOptions

Modules = Sequence[nn.Module] | nn.ModuleList

Refinement = Literal["none", "once", "twice"]
"""Start of each layer's boxes: the first references; the boxes of the layer before, as constants; or these boxes with
their gradient, so that the loss of a layer also trains the boxes of the layer before (looking forward twice)."""


def build_decoder_layers(
    options: DecoderOptions, hidden_dim: int, num_levels: int, *, joining: Joining = "projected"
) -> nn.ModuleList:
    """Build the layers of a deformable decoder for queries of width ``hidden_dim``."""
    return nn.ModuleList(
        DeformableDecoderLayer(
            hidden_dim,
            num_heads=(options.num_heads, options.sampling_heads),
            num_levels=num_levels,
            num_points=options.num_points,
            hidden_dim=options.feedforward_dim,
            dropout=options.dropout,
            sampling=options.sampling,
            sampling_method=options.sampling_method,
            offset_scale=options.offset_scale,
            activation=options.activation,
            joining=joining,
            feed_forward=options.feed_forward,
        )
        for _ in range(options.num_layers)
    )


def reset_predictors(classes: Iterable[nn.Module], boxes: Iterable[nn.Module]) -> None:
    """Start every class at probability 0.01 and every box at its reference."""
    for linear in classes:
        nn.init.constant_(cast(Tensor, linear.bias), -math.log(99))
    for mlp in boxes:
        last = cast(nn.Linear, cast(MLP, mlp).layers[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class LayerHeads(NamedTuple):
    """Heads that predict from the contents after each decoder layer.

    ``classes`` and ``boxes`` are those of each layer, or one for all; a box head predicts the offset to the reference,
    before the sigmoid, or, if ``relative``, what ``move_boxes`` takes. ``norm`` is of the contents that layers predict
    from, and not of those that the reference of the next layer comes from. Boxes keep ``margin`` from 0 and 1 where
    they go back through the sigmoid.
    """

    classes: Modules
    boxes: Modules
    norm: nn.Module | None = None
    margin: float = 1e-5
    relative: bool = False

    def classify(self, layer: int, content: Float[Tensor, "b q d"]) -> Float[Tensor, "b q k"]:
        """Predict the logits of a layer."""
        logits: Tensor = self.classes[layer if len(self.classes) > 1 else 0](content)
        return logits

    def move(
        self, layer: int, content: Float[Tensor, "b q d"], *references: Float[Tensor, "b q r"]
    ) -> list[Float[Tensor, "b q 4"]]:
        """Predict the box of a layer from each of several references; the size of a point is the offset alone."""
        offset = run_in_full_precision(self.boxes[layer if len(self.boxes) > 1 else 0], content)
        if self.relative:
            return [move_boxes(reference, offset) for reference in references]
        starts = [inverse_sigmoid(reference, self.margin) for reference in references]
        return [(offset + (one if one.shape[-1] == 4 else F.pad(one, (0, 2)))).sigmoid() for one in starts]


class DecodedQueries(NamedTuple):
    """Predictions of the layers that predict, and the contents of the queries that they come from."""

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]
    contents: tuple[Float[Tensor, "b q d"], ...]


def decode_queries(
    layers: Modules,
    tokens: LevelTokens,
    content: Float[Tensor, "b q d"],
    reference: Float[Tensor, "b q r"],
    *,
    positions: Callable[[Float[Tensor, "b q r"]], Float[Tensor, "b q d"]],
    heads: LayerHeads,
    every_layer: bool,
    refinement: Refinement = "once",
    blocked: Bool[Tensor, "*bm f f"] | None = None,
    num_groups: int = 1,
    classes_first: bool = False,
) -> DecodedQueries:
    """Decode queries layer by layer.

    Args:
        layers: those that run.
        tokens: of all levels.
        content: of the queries.
        reference: points (r = 2) or center boxes (r = 4) to sample around, relative to the image inside its padding.
        positions: encoding of the references.
        heads: of the layers.
        every_layer: predict from every layer, and not from the last one only.
        refinement: start of each layer's boxes.
        blocked: True where a query (row) must not attend to another (column); see ``DeformableDecoderLayer``.
        num_groups: of queries that do not attend to those of other groups; likewise.
        classes_first: run the class head before the box head; it decides about the last bit of summed gradients.

    Source: Zhu et al., Deformable DETR, ICLR 2021, appendix A.4; Zhang et al., DINO, ICLR 2023, section 3.5 (looking
    forward twice).
    """
    layer_logits: list[Tensor] = []
    layer_boxes: list[Tensor] = []
    contents: list[Tensor] = []
    sampled, previous = (tokens.memory, tokens.shapes), reference
    attention = {"padding": tokens.padding, "blocked": blocked, "num_groups": num_groups}
    for i, layer in enumerate(layers):
        if i == 0 or refinement != "none":
            encoded = positions(reference)
        content = layer(content, encoded, spread_over_levels(reference, tokens), *sampled, **attention)
        last = i == len(layers) - 1
        predicts = every_layer or last
        final = heads.norm(content) if heads.norm is not None and predicts else content
        contents += [final] if predicts else []
        if predicts and classes_first:
            layer_logits.append(heads.classify(i, final))
        if not predicts and refinement == "none":
            continue
        twice = refinement == "twice" and every_layer and i > 0
        refined, box = heads.move(i, final, reference, previous) if twice else heads.move(i, final, reference) * 2
        if predicts:
            layer_boxes.append(box)
            if not classes_first:
                layer_logits.append(heads.classify(i, final))
        if refinement != "none":
            previous = refined if last or final is content else heads.move(i, content, reference)[0]
            reference = previous.detach()
    return DecodedQueries(torch.stack(layer_logits), torch.stack(layer_boxes), tuple(contents))


@torch.no_grad()
def predict_layers(
    contents: Sequence[Float[Tensor, "b q d"]],
    reference: Float[Tensor, "b q r"],
    heads: LayerHeads,
    refinement: Refinement,
) -> tuple[list[Float[Tensor, "b q _r"]], Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]:
    """Predict from the contents that ``decode_queries`` had after each layer, as if it were the last.

    Args:
        contents: of the queries, after each layer.
        reference: of the first layer.
        heads: as for ``decode_queries``.
        refinement: likewise.

    Returns:
        reference, logits and center boxes of each layer.
    """
    references, layer_logits, layer_boxes = [], [], []
    for i, content in enumerate(contents):
        final = content if heads.norm is None else heads.norm(content)
        references.append(reference)
        layer_logits.append(heads.classify(i, final))
        layer_boxes += heads.move(i, final, reference)
        if refinement != "none":
            reference = layer_boxes[-1] if final is content else heads.move(i, content, reference)[0]
    return references, torch.stack(layer_logits), torch.stack(layer_boxes)


def spread_over_levels(reference: Float[Tensor, "b q r"], tokens: LevelTokens) -> Float[Tensor, "b q #l r"]:
    """Convert references from units of the image to units of each whole map."""
    if tokens.padding is None and reference.shape[-1] == 4:
        # Ratios of 1: one box for all levels is cheaper. Points have gradients, whose order of addition would change.
        return reference[:, :, None]
    ratios = tokens.valid_ratios.repeat(1, 1, reference.shape[-1] // 2)
    return reference[:, :, None] * ratios[:, None]
