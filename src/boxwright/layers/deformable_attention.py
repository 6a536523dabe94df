"""Multi-scale deformable attention and the decoder layer built on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, cast, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.batch_first_attention import BatchFirstAttention
from boxwright.layers.conv import Activation
from boxwright.layers.dropout import Dropout
from boxwright.layers.option_checks import check_choice
from boxwright.layers.swiglu import SwiGLU
from boxwright.layers.transformer import FeedForward, clamp_to_half
from boxwright.ops.boxes import at_least_float32
from boxwright.ops.deformable import Sampling, SamplingMethod, deformable_sampling


class MultiScaleDeformableAttention(nn.Module):
    """Attention of each query to a few points around its reference, on every level.

    Offsets and weights are linear in the query; the softmax of the weights runs over the points of all levels jointly.
    A reference box (cx, cy, w, h) is sampled at center + offset / points of the level * size * offset_scale, a
    reference point at point + offset in cells of the level.

    Args:
        dim: width of queries and values.
        num_heads: attention heads; divides ``dim``.
        num_levels: of the value maps.
        num_points: per head and level; one number, or one for each level.
        sampling: backend of the sampling, see ``deformable_sampling``.
        sampling_method: ``default`` samples bilinearly, ``discrete`` takes the value of one cell; then there is no
            gradient of the offsets, and they are not trained.
        offset_scale: of offsets from reference boxes, in sides of the box; positive.
        projected: values and output go through a linear layer; else the heads take their channels as they come.

    Raises:
        ValueError: for a width, a backend, a method, a scale or numbers of points that do not fit.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.1; numbers of points by level, scale of offsets and
    discrete sampling: Lv et al., RT-DETRv2, 2024; without projections: Peng et al., D-FINE, ICLR 2025. Checked against
    transformers, lyuwenyu/RT-DETR 068dfde, both methods, and Peterande/D-FINE 4a1f73a: outputs, gradients. Differs from
    the authors' discrete sampling on maps that are not square, where it clamps columns by the height; see
    ``find_cells``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int | Sequence[int],
        *,
        sampling: Sampling = "auto",
        sampling_method: SamplingMethod = "default",
        offset_scale: float = 0.5,
        projected: bool = True,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads has to divide the width {dim}, and {num_heads} does not")
        check_choice("sampling", sampling, get_args(Sampling))
        check_choice("sampling_method", sampling_method, get_args(SamplingMethod))
        if not offset_scale > 0:
            raise ValueError(f"offset_scale is positive, not {offset_scale}")
        self.points = spread_points(num_points, num_levels)
        self.num_heads, self.sampling = num_heads, sampling
        self.sampling_method, self.offset_scale = sampling_method, offset_scale
        samples = num_heads * sum(self.points)
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        # Without a gradient, processes would wait for it.
        self.sampling_offsets.requires_grad_(sampling_method == "default")
        self.attention_weights = nn.Linear(dim, samples)
        self.value_projection = nn.Linear(dim, dim) if projected else nn.Identity()
        self.output_projection = nn.Linear(dim, dim) if projected else nn.Identity()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start each head in its own direction, its points 1, 2, 3, ... steps away, with equal weights."""
        # On the CPU, whatever the device of a context: arithmetic without storage imports all of torch's compiler.
        angle = torch.arange(self.num_heads, device="cpu") * (2 * math.pi / self.num_heads)
        direction = torch.stack((angle.cos(), angle.sin()), -1)
        direction = direction / direction.abs().max(-1, keepdim=True).values
        steps = torch.cat([torch.arange(1, count + 1, device="cpu") for count in self.points])[:, None]
        offsets = direction[:, None] * steps  # m p 2
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_projection, self.output_projection):
            if isinstance(projection, nn.Linear):
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Float[Tensor, "b q d"],
        reference: Float[Tensor, "b q #l r"],
        memory: Float[Tensor, "b t d"],
        shapes: Sequence[tuple[int, int]],
        padding: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Attend.

        Args:
            query: with its position added.
            reference: per level, or one for all, in units of the whole map: points (x, y), r = 2, or boxes
                (cx, cy, w, h), r = 4.
            memory: tokens of all levels, flattened and concatenated.
            shapes: (h, w) of each level.
            padding: True on tokens that are padding; they count as zero.
        """
        b, m = query.shape[0], self.num_heads
        value = self.value_projection(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        locations, weights = self.place_samples(query, reference, shapes)
        value = value.view(b, -1, m, value.shape[-1] // m)
        sampled = deformable_sampling(
            value, shapes, locations, weights, self.points, backend=self.sampling, method=self.sampling_method
        )
        return cast(Tensor, self.output_projection(sampled))

    def place_samples(
        self, query: Float[Tensor, "b q d"], reference: Float[Tensor, "b q #l r"], shapes: Sequence[tuple[int, int]]
    ) -> tuple[Float[Tensor, "b q m p 2"], Float[Tensor, "b q m p"]]:
        """Compute locations, in units of the whole map of their level, and weights of the samples of each query.

        Args:
            query: with its position added.
            reference: as for ``forward``.
            shapes: (h, w) of each level.
        """
        b, q, _ = query.shape
        m = self.num_heads
        offsets = at_least_float32(self.sampling_offsets(query)).view(b, q, m, -1, 2)
        weights = at_least_float32(self.attention_weights(query)).view(b, q, m, -1).softmax(-1)
        return self._locate(offsets, at_least_float32(reference), shapes), weights

    def _locate(
        self,
        offsets: Float[Tensor, "b q m p 2"],
        reference: Float[Tensor, "b q #l r"],
        shapes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "b q m p 2"]:
        """Add the offsets to the references of their levels."""
        if len(set(self.points)) == 1:
            # Levels and points are axes of their own here, and nothing of a level is repeated for its points.
            offsets = offsets.unflatten(3, (len(self.points), -1))  # b q m l p 2
            reference = reference[:, :, None, :, None]
        else:
            reference = self._repeat(reference.expand(-1, -1, len(self.points), -1))[:, :, None]  # b q 1 p r
        if reference.shape[-1] == 4:
            locations = reference[..., :2] + offsets / self._counts(offsets) * reference[..., 2:] * self.offset_scale
        else:
            # Not new_tensor, which would fix the sizes of an export (torch 2.14).
            cells = torch.tensor([(w, h) for h, w in shapes], device=offsets.device, dtype=offsets.dtype)
            locations = reference + offsets / (cells[:, None] if offsets.ndim == 6 else self._repeat(cells))
        return locations.flatten(3, -2)

    def _counts(self, like: Tensor) -> int | Float[Tensor, "p 1"]:
        """Count the points of the level of each point, or of all levels where they are alike."""
        if len(set(self.points)) == 1:
            return self.points[0]
        return like.new_tensor([count for count in self.points for _ in range(count)])[:, None]

    def _repeat(self, of_level: Float[Tensor, "*b l r"]) -> Float[Tensor, "*b p r"]:
        """Repeat the rows of each level for each of its points."""
        indices = [level for level, count in enumerate(self.points) for _ in range(count)]
        return of_level.index_select(-2, torch.tensor(indices, device=of_level.device))


def spread_points(num_points: int | Sequence[int], num_levels: int) -> tuple[int, ...]:
    """Number the points of each level.

    Args:
        num_points: one number for all levels, or one for each.
        num_levels: number of levels.

    Raises:
        ValueError: there are more or fewer numbers than levels, or one of them is below 1.
    """
    points = (num_points,) * num_levels if isinstance(num_points, int) else tuple(num_points)
    if len(points) != num_levels or min(points) < 1:
        raise ValueError(
            f"num_points is one number of at least 1, or one for each of {num_levels} levels, not {num_points}"
        )
    return points


RMS_EPS = 1e-6

FeedForwardKind = Literal["mlp", "swiglu"]
"""Linear layers with an activation between them, and layer norms; or ``SwiGLU`` of half the width, and RMS norms."""

Joining = Literal["projected", "gated", "plain"]
"""Way in of what was sampled: projected, by a residual; as it is, by a ``Gate``; or as it is, by a residual."""


class Gate(nn.Module):
    """Sum of two inputs by weights that both of them decide, channel by channel: norm(g1 x + g2 y).

    g1 and g2 are sigmoids of a linear layer of both; they begin at 0.5.

    Args:
        dim: width of the inputs.
        norm: made for a width.

    Source: Peng et al., D-FINE, ICLR 2025. Checked against ``Gate`` of Peterande/D-FINE 4a1f73a.
    """

    def __init__(self, dim: int, *, norm: Callable[[int], nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.weights = nn.Linear(2 * dim, 2 * dim)
        self.norm = norm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin with equal weights."""
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    def forward(self, x: Float[Tensor, "b q d"], y: Float[Tensor, "b q d"]) -> Float[Tensor, "b q d"]:
        of_x, of_y = self.weights(torch.cat((x, y), -1)).sigmoid().chunk(2, -1)
        return cast(Tensor, self.norm(of_x * x + of_y * y))


class DeformableDecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the maps and feed-forward; post-norm.

    Args:
        dim: width of the queries.
        num_heads: attention heads, of both attentions, or of self-attention and of the attention to the maps.
        num_levels: of the maps.
        num_points: per head and level; one number, or one for each level.
        hidden_dim: width of the feed-forward.
        dropout: probability after each of the three, in [0, 1).
        sampling: backend of the sampling, see ``deformable_sampling``.
        sampling_method: see ``MultiScaleDeformableAttention``.
        offset_scale: likewise.
        activation: of the feed-forward.
        joining: see ``Joining``.
        feed_forward: see ``FeedForwardKind``.

    Source: Zhu et al., Deformable DETR; lyuwenyu/RT-DETR 068dfde (``TransformerDecoderLayer``); with gates,
    Peterande/D-FINE 4a1f73a; with ``swiglu``, Intellindust-AI-Lab/DEIMv2 0fff8d4. The norms are numbered in their order
    of execution.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int | tuple[int, int] = 8,
        num_levels: int = 3,
        num_points: int | Sequence[int] = 4,
        hidden_dim: int = 1024,
        dropout: float = 0.0,
        sampling: Sampling = "auto",
        sampling_method: SamplingMethod = "default",
        offset_scale: float = 0.5,
        activation: Activation = "relu",
        joining: Joining = "projected",
        feed_forward: FeedForwardKind = "mlp",
    ) -> None:
        super().__init__()
        norm = nn.LayerNorm if feed_forward == "mlp" else partial(nn.RMSNorm, eps=RMS_EPS)
        self.gated = joining == "gated"
        own_heads, sampling_heads = (num_heads, num_heads) if isinstance(num_heads, int) else num_heads
        self.self_attention = BatchFirstAttention(dim, own_heads, dropout)
        self.norm1 = norm(dim)
        self.cross_attention = MultiScaleDeformableAttention(
            dim,
            sampling_heads,
            num_levels,
            num_points,
            sampling=sampling,
            sampling_method=sampling_method,
            offset_scale=offset_scale,
            projected=joining == "projected",
        )
        if self.gated:
            self.gate = Gate(dim, norm=norm)
        else:
            self.norm2 = norm(dim)
        self.feed_forward: nn.Module = (
            FeedForward(dim, hidden_dim, activation=activation, dropout=dropout)
            if feed_forward == "mlp"
            else SwiGLU(dim, hidden_dim // 2)
        )
        self.norm3 = norm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        positions: Float[Tensor, "b q d"],
        reference: Float[Tensor, "b q #l r"],
        memory: Float[Tensor, "b t d"],
        shapes: Sequence[tuple[int, int]],
        *,
        padding: Bool[Tensor, "b t"] | None = None,
        blocked: Bool[Tensor, "*bm f f"] | None = None,
        num_groups: int = 1,
    ) -> Float[Tensor, "b q d"]:
        """Run one round.

        Args:
            queries: contents.
            positions: added to queries and keys, never to values.
            reference: see ``MultiScaleDeformableAttention``.
            memory: tokens of all levels.
            shapes: (h, w) of each level.
            padding: True on tokens that are padding.
            blocked: True where a query (row) must not see another (column); of the queries of the first group, and of
                those that come before them. Of all images, or of each image and attention head.
            num_groups: groups of as many queries each, which do not see those of other groups.
        """
        attended = self._attend(queries + positions, queries, blocked, num_groups)
        queries = self.norm1(queries + self.dropout(attended))
        sampled = self.cross_attention(queries + positions, reference, memory, shapes, padding)
        sampled = self.dropout(sampled)
        queries = self.gate(queries, sampled) if self.gated else self.norm2(queries + sampled)
        residual = queries + self.dropout(self.feed_forward(queries))
        return cast(Tensor, self.norm3(clamp_to_half(residual)))

    def _attend(
        self,
        positioned: Float[Tensor, "b q d"],
        queries: Float[Tensor, "b q d"],
        blocked: Bool[Tensor, "*bm f f"] | None,
        num_groups: int,
    ) -> Float[Tensor, "b q d"]:
        """Attend to the queries of the same group: each group is an image of the batch."""

        def attend(positioned: Tensor, queries: Tensor, blocked: Tensor | None = None) -> Tensor:
            attended = self.self_attention(positioned, positioned, queries, attn_mask=blocked, need_weights=False)[0]
            return cast(Tensor, attended)

        if num_groups == 1:
            return attend(positioned, queries, blocked)
        parts, first = [], 0
        if blocked is not None:
            # What others do not have; the size of a mask of all groups would grow with their square.
            first, num_groups = len(blocked), num_groups - 1
            parts.append(attend(positioned[:, :first], queries[:, :first], blocked))
        groups = (x[:, first:].unflatten(1, (num_groups, -1)).flatten(0, 1) for x in (positioned, queries))
        parts.append(attend(*groups).unflatten(0, (-1, num_groups)).flatten(1, 2))
        return torch.cat(parts, 1)
