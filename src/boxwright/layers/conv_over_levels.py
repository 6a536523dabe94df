"""One convolution over several levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.ops.winograd import winograd_conv3x3

MIN_CHANNELS = 128
MIN_CELLS = 512


def conv_over_levels(conv: nn.Conv2d, maps: Sequence[Float[Tensor, "b c _h _w"]]) -> list[Float[Tensor, "b o _h _w"]]:
    """``conv`` of each map; in training on a CPU in Winograd's form, where that is faster.

    It is from 128 channels and, over all maps of an image, 512 cells. The count does not depend on the batch.
    """
    if _winograd_is_faster(conv, maps):
        return winograd_conv3x3(maps, conv.weight, conv.bias)
    return [conv(x) for x in maps]


def _winograd_is_faster(conv: nn.Conv2d, maps: Sequence[Tensor]) -> bool:
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    return (
        # Where nothing is trained, graphs are exported and operations counted: of convolutions, as everyone counts.
        torch.is_grad_enabled()
        and conv.weight.requires_grad
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in (conv.weight, *maps))
        and geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
        and sum(x.shape[2] * x.shape[3] for x in maps) >= MIN_CELLS
    )
