"""The mask branch of query heads: a mask of the whole image from each query."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.channel_norm import ChannelNorm
from boxwright.layers.mlp import MLP
from boxwright.ops.boxes import at_least_float32
from boxwright.queries.groups import fold_groups
from boxwright.queries.tokens import LevelProjections
from boxwright.structures import MaskRegion

MASK_STRIDE = 4


class MaskFactors(NamedTuple):
    """Masks of queries after decoder layers, as factors: logit = query . cell + offset.

    Queries of several groups are those of as many images more, all images group by group; maps are the same for all.
    There are ``maps`` for each of the layers, of float32 at least, so that no use of them has to convert them. Their
    cells are about ``MASK_STRIDE`` pixels wide. They cover ``size``, (height, width) in pixels of the network input,
    which may reach beyond the input by less than a cell of the finest level.
    """

    maps: tuple[Float[Tensor, "b d h w"], ...]
    queries: Float[Tensor, "l gb q d"]
    offsets: Float[Tensor, "l gb q"]
    size: tuple[int, int]

    def append(self, others: MaskFactors) -> MaskFactors:
        """Add the layers of other masks of as many queries, which cover the same."""
        queries, offsets = torch.cat((self.queries, others.queries)), torch.cat((self.offsets, others.offsets))
        return self._replace(maps=(*self.maps, *others.maps), queries=queries, offsets=offsets)

    def repeat_last(self) -> MaskFactors:
        """Add another layer, with the masks of the last one."""
        queries, offsets = (torch.cat((one, one[-1:])) for one in (self.queries, self.offsets))
        return self._replace(maps=(*self.maps, self.maps[-1]), queries=queries, offsets=offsets)

    def fold(self, num_groups: int) -> MaskFactors:
        """Make each group of queries images of the batch."""
        queries, offsets = (fold_groups(one, num_groups, axis=1) for one in (self.queries, self.offsets))
        return self._replace(queries=queries, offsets=offsets)

    def split(self, num_noised: int) -> tuple[MaskFactors, MaskFactors]:
        """Split into those of noised queries, which come first, and those of the others."""
        queries, offsets = self.queries, self.offsets
        return (
            self._replace(queries=queries[:, :, :num_noised], offsets=offsets[:, :, :num_noised]),
            self._replace(queries=queries[:, :, num_noised:], offsets=offsets[:, :, num_noised:]),
        )

    def probabilities(self, queries: Int[Tensor, "b n"]) -> Float[Tensor, "b n h w"]:
        """Compute the masks of some queries of the first group after the last layer."""
        cells = self.maps[-1]
        first, width = slice(cells.shape[0]), self.queries.shape[-1]
        own = at_least_float32(self.queries[-1, first].gather(1, queries[..., None].expand(-1, -1, width)))
        offsets = at_least_float32(self.offsets[-1, first].gather(1, queries))
        # In one piece: there are hundreds of masks.
        logits = torch.baddbmm(offsets[..., None], own, cells.flatten(2))
        return logits.sigmoid().reshape(*queries.shape, *cells.shape[2:])

    def regions(self, boxes: Float[Tensor, "b n 4"]) -> Float[Tensor, "b n 4"]:
        """Repeat the region that is covered for each of the boxes, as corners in pixels of the network input."""
        height, width = self.size
        corners = (torch.full_like(boxes[..., 0], side) for side in (0, 0, width, height))
        return torch.stack(list(corners), -1)


def multiply(
    queries: Float[Tensor, "n d"], cells: Float[Tensor, "... d"], offsets: Float[Tensor, " n"]
) -> Float[Tensor, "n ..."]:
    """Compute the logits of queries for the cells of a map, (h, w, d), or for points between them, (p, d)."""
    logits = torch.addmm(offsets[:, None], queries, cells.flatten(0, -2).t())
    return logits.reshape(len(queries), *cells.shape[:-1])


class MaskBlock(nn.Module):
    """Depthwise 3 x 3 convolution, norm, 1 x 1 convolution and GELU beside a shortcut: ConvNeXt's without its MLP.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = ChannelNorm(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        out: Tensor = x + F.gelu(self.pointwise(self.norm(self.depthwise(x))))
        return out


class QueryMaskBranch(nn.Module):
    """Products of queries and cells: a block for each decoder layer refines the finest level at a fourth of the image.

    Args:
        hidden_dim: width of the level and the queries.
        num_layers: decoder layers.
        stride: of the finest level, in pixels of the network input.

    Source: ``SegmentationHead`` of roboflow/rf-detr 35ac6ab and of Intellindust-AI-Lab/EdgeCrafter 706d037. Checked
    against both: outputs and gradients. Differs in projecting the queries by the transposed projection of the cells, in
    place of the cells, and where the network input is no whole number of cells: theirs stretch the level to its size.
    """

    def __init__(self, hidden_dim: int, num_layers: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # For counting only: project the cells, as the published graph does.
        self.count_as_published = False
        self.blocks = nn.ModuleList(MaskBlock(hidden_dim) for _ in range(num_layers))
        self.cell_projection = nn.Conv2d(hidden_dim, hidden_dim, 1)
        self.query_norm = nn.LayerNorm(hidden_dim)
        self.query_mlp = MLP(hidden_dim, 4 * hidden_dim, hidden_dim, 2, activation="gelu")
        self.query_projection = nn.Linear(hidden_dim, hidden_dim)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(
        self, finest: Float[Tensor, "b d y x"], contents: Float[Tensor, "l b q d"], num_layers: int
    ) -> MaskFactors:
        """Predict masks, as factors.

        Args:
            finest: the finest level.
            contents: of the queries after the decoder layers that predict, which are the last ones.
            num_layers: decoder layers that ran.
        """
        (cells, size), maps = self._resize(finest), []
        for i, block in enumerate(self.blocks[:num_layers]):
            cells = block(cells)
            if i >= num_layers - len(contents):
                maps.append(at_least_float32(self.cell_projection(cells) if self.count_as_published else cells))
        queries = self._project(contents)
        if self.count_as_published:
            # A sum, because a view of a parameter asks for gradients even where there are none (torch 2.15).
            return MaskFactors(tuple(maps), queries, torch.zeros_like(queries[..., 0]) + self.bias, size)
        # q . (W x + b) = (q W) . x + q . b, for a few queries in place of all cells.
        weight, bias = self.cell_projection.weight.flatten(1), self.cell_projection.bias
        assert bias is not None
        return MaskFactors(tuple(maps), F.linear(queries, weight.t()), queries @ bias + self.bias, size)

    def predict_from_tokens(self, finest: Float[Tensor, "b d y x"], tokens: Float[Tensor, "b q d"]) -> MaskFactors:
        """Predict masks of one layer from selected tokens and the finest level as it is, before any block."""
        (cells, size), queries = self._resize(finest), self._project(tokens[None])
        return MaskFactors((at_least_float32(cells),), queries, torch.zeros_like(queries[..., 0]) + self.bias, size)

    def _resize(self, finest: Float[Tensor, "b d y x"]) -> tuple[Float[Tensor, "b d h w"], tuple[int, int]]:
        """Interpolate the finest level to the cells of masks; return it with (height, width) of what it covers."""
        size = finest.shape[-2] * self.stride, finest.shape[-1] * self.stride
        rows, columns = (-(-side // MASK_STRIDE) for side in size)
        return F.interpolate(finest, size=(rows, columns), mode="bilinear"), size

    def _project(self, contents: Float[Tensor, "l b q d"]) -> Float[Tensor, "l b q d"]:
        projected: Tensor = self.query_projection(contents + self.query_mlp(self.query_norm(contents)))
        return projected


def build_mask_branch(
    masks: bool, hidden_dim: int, num_layers: int, projections: LevelProjections
) -> tuple[QueryMaskBranch | None, MaskRegion | None]:
    """Build the branch for the finest of the projected levels, and tell the region of its masks; None without masks."""
    if not masks:
        return None, None
    return QueryMaskBranch(hidden_dim, num_layers, projections.strides[0]), "image"
