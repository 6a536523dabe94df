"""DETR's head: learned queries find one object each, matched one to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.detections import Detections
from boxwright.layers.mlp import MLP
from boxwright.layers.option_checks import check_counts, check_hidden_dim, check_shares
from boxwright.layers.padding import resize_mask
from boxwright.layers.positions import LevelPositions, Positions, PositionsAt
from boxwright.layers.predictions import run_in_full_precision
from boxwright.layers.tokens import to_tokens
from boxwright.layers.transformer import TransformerDecoderLayer, xavier_matrices
from boxwright.queries.class_losses import CrossEntropyLoss, SoftmaxCost
from boxwright.queries.criterion import SetCriterion, named_terms, normalized_targets
from boxwright.queries.decode import softmax_detections
from boxwright.queries.matching import HungarianMatcher
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets, head_levels

__all__ = ["DETR"]


class DETROutput(NamedTuple):
    """What the head predicts. Boxes are center boxes relative to the image's content, in [0, 1].

    Both have a decoder layer in front: every layer with targets, the last one without. The last logit of a query
    stands for "no object".
    """

    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]

    def prediction(self) -> tuple[Float[Tensor, "b q k"], Float[Tensor, "b q 4"]]:
        """Logits and boxes of the last decoder layer."""
        return self.logits[-1], self.boxes_cxcywh_norm[-1]


class DETR(nn.Module):
    """Learned queries attend to each other and to all cells of all levels, layer by layer.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        hidden_dim: width of tokens and queries; a multiple of ``num_heads``, and of 4 for sine positions. Levels of
            another width are projected to it.
        num_queries: how many objects can be found in an image.
        num_layers: decoder layers.
        num_heads: heads of both attentions.
        feedforward_dim: width of the feed-forward.
        dropout: of attention weights, after both attentions, in and after the feed-forward, in [0, 1).
        pre_norm: norms before attentions and feed-forward.
        positions: of the cells: ``sine``, ``learned`` (up to 50 cells along each side) or ``none``.
        positions_at: ``attention`` adds them to the keys alone, ``input`` to the values too.
        query_positions_at: the learned queries are added to the queries and keys of every attention (``attention``)
            and contents start from zero, or they are what contents start from (``input``).
        auxiliary_losses: the layers before the last are trained with the same losses.
        no_object_weight: of queries without object in the cross entropy, in [0, 1].
        class_weight: of the cross entropy.
        l1_weight: of the L1 loss.
        giou_weight: of the GIoU loss.

    Source: Carion et al., DETR, ECCV 2020, section 3, appendix A.3 and table 3. Checked against facebookresearch/detr
    29901c5 and transformers (outputs, assignments, losses, gradients). Differs in taking several levels; in learned
    positions of its own, where the original shares one table with the encoder; in a cross entropy averaged over the
    whole optimizer step. Positions at the input are the paper's; the original's code has none.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        hidden_dim: int = 256,
        num_queries: int = 100,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
        pre_norm: bool = False,
        positions: Positions = "sine",
        positions_at: PositionsAt = "attention",
        query_positions_at: PositionsAt = "attention",
        auxiliary_losses: bool = True,
        no_object_weight: float = 0.1,
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
    ) -> None:
        super().__init__()
        counts = {"num_classes": num_classes, "num_queries": num_queries, "num_layers": num_layers}
        check_counts(counts | {"num_heads": num_heads})
        check_hidden_dim(hidden_dim, num_heads)
        check_shares({"no_object_weight": no_object_weight})
        self.levels = head_levels(in_spec)
        self.num_classes, self.num_queries, self.auxiliary_losses = num_classes, num_queries, auxiliary_losses
        self.positions_at, self.query_positions_at = positions_at, query_positions_at
        self.criterion = SetCriterion(
            class_loss=CrossEntropyLoss(no_object_weight),
            matcher=HungarianMatcher(class_cost=SoftmaxCost(), class_weight=1.0),
            class_weight=class_weight,
            l1_weight=l1_weight,
            giou_weight=giou_weight,
        )
        self.projections = nn.ModuleDict(
            {
                name: nn.Conv2d(in_spec[name].channels, hidden_dim, 1)
                for name in self.levels
                if in_spec[name].channels != hidden_dim
            }
        )
        self.positions = LevelPositions(positions, hidden_dim)
        self.queries = nn.Embedding(num_queries, hidden_dim)
        self.layers = nn.ModuleList(
            TransformerDecoderLayer(hidden_dim, num_heads, feedforward_dim, dropout=dropout, pre_norm=pre_norm)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_dim)
        self.classes = nn.Linear(hidden_dim, num_classes + 1)
        self.boxes = MLP(hidden_dim, hidden_dim, 4, 3)
        xavier_matrices(self.layers)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> DETROutput:
        """Predict; with ``targets`` from every layer that is trained."""
        maps = [
            self.projections[name](features[name]) if name in self.projections else features[name]
            for name in self.levels
        ]
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        memory = torch.cat([to_tokens(x) for x in maps], 1)  # b (l h w) d
        padding = None
        if padding_mask is not None:
            padding = torch.cat([resize_mask(padding_mask, h, w).flatten(1) for h, w in shapes], 1)
        positions = self.positions(shapes, padding_mask, memory.device)
        keys = memory if positions is None else memory + positions
        if self.positions_at == "input":
            memory = keys
        contents = self._decode(keys, memory, padding)
        contents = contents if targets is not None and self.auxiliary_losses else contents[-1:]
        decoded = self.norm(torch.stack(contents))
        return DETROutput(self.classes(decoded), run_in_full_precision(self.boxes, decoded).sigmoid())

    def loss(
        self, output: DETROutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted loss terms of every decoder layer.

        Args:
            output: made with the same targets.
            targets: one per image.
            totals: of the whole optimizer step; of these targets where None.
        """
        losses = self.criterion(*output, normalized_targets(targets), totals or LossTotals.of(targets))
        return named_terms(losses, [*(f"_{i}" for i in range(len(output.logits) - 1)), ""])

    def postprocess(self, output: DETROutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """Each query's best class, in pixels of the original image, best first."""
        return softmax_detections(*output.prediction(), image_sizes)

    def _decode(
        self, keys: Float[Tensor, "b t d"], memory: Float[Tensor, "b t d"], padding: Bool[Tensor, "b t"] | None
    ) -> list[Float[Tensor, "b q d"]]:
        learned, positions = self.queries.weight, None
        contents = learned.expand(memory.shape[0], -1, -1)
        if self.query_positions_at == "attention":
            contents, positions = torch.zeros_like(contents), learned
        decoded = []
        for layer in self.layers:
            contents = layer(contents, positions, keys, memory, padding)
            decoded.append(contents)
        return decoded
