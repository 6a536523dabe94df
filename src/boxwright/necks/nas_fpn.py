"""The feature pyramid of an architecture search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.ceil_pooling import max_pool_ceil
from boxwright.layers.conv import ConvNorm
from boxwright.layers.feature_pyramid import level_steps, reset_convolutions
from boxwright.layers.option_checks import check_choice, check_counts, check_fractions
from boxwright.ops.onnx_operators import operators_for_onnx
from boxwright.structures import Features, Level, Spec, coarser_name

__all__ = ["NASFPN"]

Wiring = Literal["tf", "mmdet"]

_EPSILON = {"tf": 1e-3, "mmdet": 1e-5}
_MOMENTUM = {"tf": 0.01, "mmdet": 0.1}


class MergingNode(NamedTuple):
    """Two maps become one.

    Args:
        level: on which the new map lies, 0 for P3 to 4 for P7.
        fine: the input from the finer level. 0 to 4 are the maps P3 to P7 that come in, 5 is the first node.
        coarse: the input from the coarser level, or from the same one.
        gated: the maps are merged with a gate, not just added.
        added: a map of this level that no node has as its input, which is added to the merged ones.
    """

    level: int
    fine: int
    coarse: int
    gated: bool = False
    added: int | None = None


NODES = (
    MergingNode(1, 1, 3, gated=True),  # 5
    MergingNode(1, 1, 5),  # 6
    MergingNode(0, 0, 6),  # 7: P3
    MergingNode(1, 7, 6),  # 8: P4
    MergingNode(2, 7, 8, gated=True, added=2),  # 9: P5
    MergingNode(4, 6, 9, gated=True, added=4),  # 10: P7
    MergingNode(3, 9, 10, gated=True),  # 11: P6
)
OUTPUTS = (7, 8, 9, 11, 10)


class NASFPN(nn.Module):
    """Five levels, P3 to P7, pass a cell of seven merging nodes, over and over.

    With gp a gated sum, every node being norm(conv3x3(relu(...))):

    a = gp(P4, P6);  b = P4 + a;  P3' = P3 + b;  P4' = P3' + b;  P5' = gp(P3', P4') + P5;  P7' = gp(b, P5') + P7;
    P6' = gp(P5', P7')

    gp(fine, coarse) = coarse + sigmoid(max(coarse)) fine in ``tf``, fine + sigmoid(mean(fine)) coarse in ``mmdet``,
    where max and mean are over the map of a channel, padding included, at the size of the node.

    Maps come to the size of a node by their strides alone. Downsampling takes the largest of k x k cells, beginning at
    the first cell; where the size is no multiple of k, the last windows are cut off. Upsampling repeats each cell k x k
    times and cuts off what exceeds the level. So each cell keeps its position in the image, at any size.

    Args:
        in_spec: the levels that come in, fine to coarse, five at most; they keep their names. Missing ones are made
            from the coarsest at the width of the neck, each by max-pooling the one before.
        out_channels: width of every level that goes out.
        repeats: how many cells; 7 in the paper's main results, 5 by default in TensorFlow's models.
        wiring: ``tf``: gates from the largest of the coarser map, levels are made by max-pooling alone, convolutions
            have a bias besides the norm, a level of the neck's width is taken as it is. ``mmdet``: gates from the mean
            of the finer map, a 1 x 1 convolution and a norm before each level that is made, no biases.
        norm_momentum: of the running statistics of batch norms, the weight of the newest batch, in (0, 1]. None for
            0.01 in ``tf``, 0.1 in ``mmdet``.

    Raises:
        ValueError: an option is out of range, more than five levels come in, or the stride of a level is no multiple of
            that of the one before.

    Source: Ghiasi et al., NAS-FPN, CVPR 2019, section 3 and figure 6. ``tf`` was checked against the node table of
    tensorflow/models official/vision/modeling/decoders/nasfpn.py, commit 00d83f3, ``mmdet`` against NASFPN of
    mmdetection 3.3.0: same weights, same outputs and gradients. Both are made for images whose sides are multiples of
    128, on which all ways of resizing agree. mmdetection's 3 x 3 convolutions do have a bias, which the norm after them
    takes away again; ours do not.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        out_channels: int = 256,
        repeats: int = 7,
        wiring: Wiring = "tf",
        norm_momentum: float | None = None,
    ) -> None:
        super().__init__()
        if len(in_spec) > 5:
            raise ValueError(f"nas_fpn merges five levels at most, not the {len(in_spec)} that come in: {[*in_spec]}")
        check_counts({"out_channels": out_channels, "repeats": repeats})
        check_choice("wiring", wiring, get_args(Wiring))
        momentum = _MOMENTUM[wiring] if norm_momentum is None else norm_momentum
        check_fractions({"norm_momentum": momentum}, zero=False)

        self.lateral, self.extra = nn.ModuleDict(), nn.ModuleDict()
        for name, level in in_spec.items():
            as_it_is = wiring == "tf" and level.channels == out_channels
            self.lateral[name] = (
                nn.Identity() if as_it_is else normed_conv(level.channels, out_channels, 1, wiring, momentum)
            )
        self.out_spec: Spec = {name: Level(out_channels, level.stride) for name, level in in_spec.items()}
        name, level = list(in_spec.items())[-1]
        for _ in range(5 - len(in_spec)):
            name, level = coarser_name(name), Level(out_channels, 2 * level.stride)
            self.out_spec[name] = level
            self.extra[name] = (
                nn.Identity() if wiring == "tf" else normed_conv(out_channels, out_channels, 1, wiring, momentum)
            )
        self.cells = nn.ModuleList(NASFPNCell(self.out_spec, out_channels, wiring, momentum) for _ in range(repeats))

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        maps = [lateral(features[name]) for name, lateral in self.lateral.items()]
        for extra in self.extra.values():
            maps.append(max_pool_ceil(extra(maps[-1]), 2))
        for cell in self.cells:
            maps = cell(maps)
        return dict(zip([*self.lateral, *self.extra], maps, strict=True))


class NASFPNCell(nn.Module):
    """All nodes once.

    Args:
        spec: the five levels, fine to coarse.
        channels: of every map.
        wiring: as in ``NASFPN``.
        momentum: of the norms.

    Raises:
        ValueError: the stride of a level is no multiple of that of the one before.
    """

    def __init__(self, spec: Spec, channels: int, wiring: Wiring, momentum: float) -> None:
        super().__init__()
        # Maps are resized by whole steps.
        level_steps(spec)
        strides = [level.stride for level in spec.values()]
        self.strides = strides + [strides[node.level] for node in NODES]
        self.wiring = wiring
        self.nodes = nn.ModuleList(normed_conv(channels, channels, 3, wiring, momentum) for _ in NODES)

    def forward(self, levels: Sequence[Float[Tensor, "b c _h _w"]]) -> list[Float[Tensor, "b c _h _w"]]:
        """Fuse levels, which come and go from fine to coarse."""
        maps = list(levels)
        for node, conv in zip(NODES, self.nodes, strict=True):
            like, stride = levels[node.level], self.strides[node.level]
            fine, coarse = (resize_map(maps[i], self.strides[i], like, stride) for i in (node.fine, node.coarse))
            merged = self.gated_sum(fine, coarse) if node.gated else fine + coarse
            if node.added is not None:
                merged = merged + maps[node.added]
            maps.append(conv(merged.relu_()))
        return [maps[i] for i in OUTPUTS]

    def gated_sum(self, fine: Float[Tensor, "b c h w"], coarse: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add one map, and the other as far as the first lets it through."""
        if self.wiring == "tf":
            return coarse + coarse.amax((-2, -1), keepdim=True).sigmoid() * fine
        return fine + fine.mean((-2, -1), keepdim=True).sigmoid() * coarse


def normed_conv(in_channels: int, out_channels: int, kernel_size: int, wiring: Wiring, momentum: float) -> ConvNorm:
    """Make a convolution and a batch norm, with the constants and the initial weights of the wiring."""
    block = ConvNorm(
        in_channels, out_channels, kernel_size, bias=wiring == "tf", eps=_EPSILON[wiring], momentum=momentum
    )
    reset_convolutions(block)
    if wiring == "tf":
        nn.init.kaiming_normal_(block.conv.weight, mode="fan_out", nonlinearity="relu")
    return block


def resize_map(
    x: Float[Tensor, "b c h_in w_in"], stride: int, like: Float[Tensor, "b c h w"], stride_out: int
) -> Float[Tensor, "b c h w"]:
    """Bring a map of one stride to the size of another map and its stride."""
    if stride < stride_out:
        return max_pool_ceil(x, stride_out // stride)
    if stride > stride_out:
        step, (height, width) = stride // stride_out, x.shape[-2:]
        if operators_for_onnx():
            # A crop would compare sizes.
            rows, columns = (torch.arange(size, device=x.device) // step for size in like.shape[-2:])
            return x.index_select(2, rows).index_select(3, columns)
        return F.interpolate(x, size=(height * step, width * step))[..., : like.shape[-2], : like.shape[-1]]
    return x
