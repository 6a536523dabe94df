"""Operations that TensorFlow's profiler counts beside products, for figures that were published with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch


def _for_each_number(*_: Any, operations: int, out_shape: Any, **__: Any) -> int:
    return operations * int(math.prod(out_shape))


def _convolution(_: Any, weight: Any, bias: Any, *__: Any, out_shape: Any, **___: Any) -> int:
    return int(math.prod(out_shape)) * (2 * int(math.prod(weight[1:])) + (bias is not None))


aten = torch.ops.aten
OPERATIONS: dict[Any, Callable[..., int]] = {
    aten.convolution: _convolution,
    aten.silu: partial(_for_each_number, operations=2),
    aten.silu_: partial(_for_each_number, operations=2),
    aten.add: partial(_for_each_number, operations=1),
    aten.mul: partial(_for_each_number, operations=1),
    aten.mean: lambda x, *_, **__: math.prod(x),
    aten.max_pool2d_with_indices: lambda *_, out_shape, **__: 9 * math.prod(out_shape[0]),
}
"""For ``OperationCounter``, and ``custom_mapping`` of ``FlopCounterMode``: two operations for each product of a
convolution, one for each bias and for each number that is added, multiplied or averaged, two for a swish, nine for a
maximum of nine.

Source: half of the sum are the multiply-adds of google/automl's EfficientDets, to 0.11 %.
"""
