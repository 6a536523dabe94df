"""Convolution, norm, activation: the brick of every backbone and neck."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["relu", "silu", "gelu"]
Norm = Literal["batch", "frozen"]

NORM_EPS = 1e-5
"""Added to the variances of norms where nothing says otherwise."""

SMALLEST_VARIANCE = torch.finfo(torch.float32).tiny
"""Least variance of a constant norm: without eps, a channel that never changes would be divided by 0."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


def check_norm_eps(norm_eps: float) -> None:
    """Check that variances stay positive, or as they are.

    Raises:
        ValueError: they do not.
    """
    if not norm_eps >= 0:
        raise ValueError(f"norm_eps is at least 0, not {norm_eps}")


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine are constants: y = (x - mean) / sqrt(var + eps) * weight + bias.

    The names are those of ``nn.BatchNorm2d``, so that its checkpoints load; all four are buffers, so that they are
    neither trained nor counted as parameters.

    Source: facebookresearch/detr models/backbone.py. Checked against torchvision.ops.FrozenBatchNorm2d. Differs in
    calling the fused ``batch_norm`` instead of a product and a sum: one pass over the map instead of two.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # A batch norm also counts its batches, which a constant has no use for.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def is_fresh(self) -> bool:
        """Tell whether the statistics are still those of a new norm, so that nothing is normalized."""
        return bool((self.running_mean == 0).all() and (self.running_var == 1).all())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        variance = self.running_var if self.eps else self.running_var.clamp(min=SMALLEST_VARIANCE)
        return F.batch_norm(x, self.running_mean, variance, self.weight, self.bias, training=False, eps=self.eps)


class ConvNorm(nn.Module):
    """Convolution, batch norm, activation; padded so that stride 1 keeps the size.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: of the square kernel.
        stride: of the convolution.
        groups: of the convolution; ``in_channels`` makes it depthwise.
        activation: None for none.
        norm: ``batch`` trains its statistics, ``frozen`` keeps them as they are loaded.
        bias: the convolution has one. The norm takes it away again; some published weights have it all the same.
        eps: of the norm.
        momentum: of the running statistics of a batch norm, the weight of the newest batch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: Activation | None = None,
        norm: Norm = "batch",
        bias: bool = False,
        eps: float = NORM_EPS,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=padding, groups=groups, bias=bias)
        self.norm: nn.Module = FrozenBatchNorm2d(out_channels, eps)
        if norm == "batch":
            self.norm = nn.BatchNorm2d(out_channels, eps, momentum)
        self.activation = ACTIVATIONS[activation]() if activation else nn.Identity()
        if isinstance(self.activation, nn.ReLU):
            # Neither a norm's gradient nor this one's needs what went in.
            self.activation.inplace = True

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        normed: Tensor = self.norm(self.conv(x))
        if normed.requires_grad and normed.device.type == "cpu" and not torch.compiler.is_compiling():
            normed.register_hook(_densify)
        out: Tensor = self.activation(normed)
        return out

    def fold_norms(self) -> None:
        """Put the norm's scale and shift into the convolution. For inference: statistics are frozen by it."""
        if not isinstance(self.norm, nn.Identity):
            self.conv, self.norm = fold(self.conv, self.norm), nn.Identity()
            overwrite(self.activation)


def _densify(grad: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return the gradient in memory of its own.

    The gradient of a map that is concatenated with others is a part of theirs, and a CPU takes ten times as long for
    the gradient of a norm from such a one.
    """
    is_dense = grad.is_contiguous(memory_format=torch.channels_last) or grad.is_contiguous()
    return grad if is_dense else grad.contiguous(memory_format=torch.channels_last)


def overwrite(activation: nn.Module) -> None:
    """Let an activation write where it reads, for inference: a fresh map costs a CPU more than the activation itself.

    Only for one whose input nothing else takes.
    """
    if isinstance(activation, nn.ReLU | nn.SiLU):
        activation.inplace = True


def fold(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """Make the one convolution that computes ``norm(conv(x))`` in evaluation."""
    return with_weights(conv, *fold_tensors(conv, norm))


@torch.no_grad()
def fold_tensors(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Compute weight and bias of that convolution.

    Computed in float64: the rounding of the fold then stays below that of the convolution itself.

    Raises:
        ValueError: the norm is not a batch norm with statistics.
    """
    if not isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d) or norm.running_var is None:
        raise ValueError(f"only a batch norm with statistics can be folded, not {type(norm).__name__}")
    assert norm.running_mean is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).clamp(min=SMALLEST_VARIANCE).sqrt()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    mean = norm.running_mean.double() if conv.bias is None else norm.running_mean.double() - conv.bias.double()
    bias = norm.bias.double() - mean * scale
    return weight.to(conv.weight.dtype), bias.to(conv.weight.dtype)


@torch.no_grad()
def with_weights(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Make a convolution with the geometry of ``like`` and these weights."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        (like.kernel_size[0], like.kernel_size[1]),
        (like.stride[0], like.stride[1]),
        (int(like.padding[0]), int(like.padding[1])),
        (like.dilation[0], like.dilation[1]),
        like.groups,
        device=weight.device,
        dtype=weight.dtype,
    )
    conv.weight.copy_(weight)
    assert conv.bias is not None
    conv.bias.copy_(bias)
    return conv.requires_grad_(like.weight.requires_grad)
