"""TensorFlow's "SAME" padding, where it differs from a symmetric one."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from boxwright.ops import onnx_operators


def max_pool_same(x: Float[Tensor, "b c h w"], stride: int) -> Float[Tensor, "b c h_out w_out"]:
    """Max-pool to ceil(size / stride) with windows of stride + 1 cells; a stride of 1 changes nothing.

    The cells by which the windows exceed the map are split between both sides, an odd one going to the far side. So
    with a stride of 2, windows start on the first cell of maps of even size, and one before it on those of odd size.

    Source: google/automl efficientdet (``MaxPooling2D``, padding SAME). Checked against timm's MaxPool2dSame.
    """
    if stride == 1:
        return x
    if onnx_operators.operators_for_onnx():
        return cast(Tensor, onnx_operators.onnx_max_pool_same(x, stride + 1, stride))
    # The near side is padded, the far side by ceil_mode: padding both would copy the map.
    before = [_excess(size, stride) // 2 for size in x.shape[-2:]]
    return F.max_pool2d(x, stride + 1, stride, (before[0], before[1]), ceil_mode=True)


def _excess(size: int, stride: int) -> int:
    """Count the cells by which the windows exceed the map; never negative, as a window is wider than its stride."""
    return (size + stride - 1) // stride * stride + 1 - size
