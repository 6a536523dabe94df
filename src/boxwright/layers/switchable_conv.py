"""Switchable atrous convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.ops.onnx_operators import operators_for_onnx


class SwitchableConv2d(nn.Module):
    """A 3 x 3 convolution at two dilations, d and 3d; every cell weighs the two in its own way. No bias.

    x = x + pre(mean(x));  s = pool5x5(switch(x));  y = s * conv_d(x, w) + (1 - s) * conv_3d(x, w + diff);
    out = y + post(mean(y)).

    w = scale * (weight - mean(weight)) / sqrt(var(weight) + 1e-5) + shift, per output channel: what is trained is the
    direction of the weights, their size and mean are constants. Both are computed from the initial weights, and from
    those of a checkpoint that has none: with a plain convolution's weights, the output is that of the convolution.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of both convolutions.
        dilation: the smaller of the two; 3 x 3 with padding, so that stride 1 keeps the size.

    Source: Qiao et al., DetectoRS, CVPR 2021, section 4. Checked against ``SAConv2d`` of mmcv a8073c7 without
    deformable convolutions: same weights, same outputs and gradients. As there, the switch is linear: it starts as 1
    everywhere, and nothing keeps it in [0, 1]. Differs in applying the switch's 1 x 1 convolution before the pooling,
    which commutes with it, so that one channel is pooled; and in maps below 3 x 3, where mmcv fails: they are
    reflected as often as it takes.
    """

    weight_scale: Tensor
    weight_shift: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.stride, self.dilation = stride, dilation
        self.standardize = True
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.weight_diff = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.register_buffer("weight_scale", torch.empty(out_channels, 1, 1, 1))
        self.register_buffer("weight_shift", torch.empty(out_channels, 1, 1, 1))
        self.switch = nn.Conv2d(in_channels, 1, 1)
        self.pre_context = nn.Conv2d(in_channels, in_channels, 1)
        self.post_context = nn.Conv2d(out_channels, out_channels, 1)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start as the convolution of dilation d alone, with weights that keep the variance of the gradient."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        shift, scale = _statistics(self.weight)
        self.weight_shift.copy_(shift)
        self.weight_scale.copy_(scale)
        for tensor in (self.weight_diff, self.switch.weight, *self.pre_context.parameters()):
            tensor.zero_()
        for tensor in self.post_context.parameters():
            tensor.zero_()
        assert self.switch.bias is not None
        self.switch.bias.fill_(1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and f"{prefix}weight_scale" not in state_dict:
            state_dict[f"{prefix}weight_shift"], state_dict[f"{prefix}weight_scale"] = _statistics(weight)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def near_weight(self) -> Float[Tensor, "c_out c 3 3"]:
        """Compute the weights of the smaller dilation, as they are applied."""
        if not self.standardize:
            return self.weight
        mean, scale = _statistics(self.weight)
        return (self.weight - mean) / scale * self.weight_scale + self.weight_shift

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        x = x + self.pre_context(x.mean((2, 3), keepdim=True))
        switch = F.avg_pool2d(_reflect(self.switch(x), 2), 5, self.stride)
        weight = self.near_weight()
        near = self._convolve(x, weight, self.dilation)
        far = self._convolve(x, weight + self.weight_diff, 3 * self.dilation)
        out = torch.lerp(far, near, switch.to(near.dtype))
        context: Tensor = self.post_context(out.mean((2, 3), keepdim=True))
        return out + context

    def _convolve(self, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        return F.conv2d(x, weight, stride=self.stride, padding=dilation, dilation=dilation)

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Store the weights as they are applied. For inference: they are not trained on from there."""
        self.weight.copy_(self.near_weight())
        self.standardize = False


def _statistics(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of each output channel's weights."""
    variance, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True)
    return mean, (variance + 1e-5).sqrt()


def _reflect(x: Float[Tensor, "b c _h _w"], margin: int) -> Float[Tensor, "b c _h_out _w_out"]:
    """Pad by reflection; where the map is smaller than the margin, its reflection is reflected again."""
    height, width = x.shape[-2:]
    if operators_for_onnx():
        # For maps of any size, of which none is known yet.
        rows, columns = (_mirror_any(size, margin, x) for size in (height, width))
        return x.index_select(2, rows).index_select(3, columns)
    if min(height, width) > margin:
        return F.pad(x, [margin] * 4, mode="reflect")
    return x[:, :, _mirror(height, margin)][..., _mirror(width, margin)]


def _mirror(size: int, margin: int) -> list[int]:
    """List the cell of ``size`` that is at each position from ``-margin`` to ``size + margin``."""
    period = max(2 * (size - 1), 1)
    cells = [position % period for position in range(-margin, size + margin)]
    return [min(cell, period - cell) for cell in cells]


def _mirror_any(size: int, margin: int, like: Tensor) -> Int[Tensor, " n"]:
    """Compute what ``_mirror`` lists, for a size that is free in a traced graph."""
    period = torch.tensor(2 * (size - 1), device=like.device).clamp(min=1)
    cells = torch.arange(-margin, size + margin, device=like.device) % period
    return torch.minimum(cells, period - cells)
