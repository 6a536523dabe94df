"""Operations of bfloat16 on CPUs that are computed in float32, because they are computed wrong or slowly otherwise.

Wrong: as torch 2.14.1 carries it for CPUs with AMX, oneDNN leaves memory unwritten where a convolution of bfloat16 that
is not depthwise, with a horizontal stride above 1, has an output one cell wide: all rows of the output but the first,
and the gradient of the weight. Other widths, a stride of 1, float16 and float32 are right (measured for kernels of 1 to
5, strides of 1 to 4, heights to 17, batches of 1 and 4, 32 to 256 channels). Such maps are the coarsest levels of
narrow images; in float32 they cost nothing that could be measured.

Slowly: the gradients of depthwise convolutions with kernels above 3 or strides above 1 take 3 to 6 times as long in
bfloat16, conversions included (4 to 9 times without them; forward, and for kernels of 3 at a stride of 1, bfloat16 is
as fast). A step of Faster R-CNN on EfficientNet-Lite0 at 256 pixels takes 0.41 s instead of 0.52 s. The gradients of
torch's fused attention take as long as in float32 or twice as long: of 482 queries with 8 heads of 32, in a batch of 4,
30 ms instead of 17 on a Xeon with AMX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def cpu_operations(images: Tensor) -> AbstractContextManager[object]:
    """Return a context in which a network computes right from ``images``, and fast where it is trained.

    It does nothing but on a CPU, and there in bfloat16 alone, and under ``torch.compile`` not even there.
    """
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return nullcontext()
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return _SomeInFloat32() if autocast or images.dtype == torch.bfloat16 else nullcontext()


_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
"""Of ``torch.conv2d``, in their order."""

_ATTENTION_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p")
"""Of ``scaled_dot_product_attention``, in their order."""


class _SomeInFloat32(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            arguments = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
            if arguments["input"].dtype != torch.float64 and (_is_narrow(arguments) or _is_slow(arguments)):
                return _compute_in_float32(func, arguments)
        elif func is F.scaled_dot_product_attention:
            arguments = {**dict(zip(_ATTENTION_ARGUMENTS, args, strict=False)), **kwargs}
            if _has_slow_gradients(arguments):
                return _compute_in_float32(func, arguments)
        return func(*args, **kwargs)


def _is_narrow(arguments: Mapping[str, Any]) -> bool:
    """Tell whether an output is one cell wide at a horizontal stride above 1."""
    step, padding = _horizontal(arguments.get("stride", 1)), arguments.get("padding", 0)
    if step == 1 or padding == "same":
        return False
    pad = 0 if padding == "valid" else _horizontal(padding)
    reach = _horizontal(arguments.get("dilation", 1)) * (arguments["weight"].shape[-1] - 1)
    return bool((arguments["input"].shape[-1] + 2 * pad - reach - 1) // step == 0)


def _is_slow(arguments: Mapping[str, Any]) -> bool:
    """Tell whether gradients are asked for of a depthwise convolution whose kernel or stride is large."""
    weight, strides = arguments["weight"], arguments.get("stride", 1)
    if arguments.get("groups", 1) == 1 or weight.shape[1] != 1 or not torch.is_grad_enabled():
        return False
    largest = strides if isinstance(strides, int) else max(strides)
    is_large = max(weight.shape[2:]) > 3 or largest > 1
    return is_large and bool(weight.requires_grad or arguments["input"].requires_grad)


def _horizontal(value: Any) -> int:
    return int(value if isinstance(value, int) else tuple(value)[-1])


def _has_slow_gradients(arguments: Mapping[str, Any]) -> bool:
    """Tell whether gradients of attention are asked for, of the kernel that is fused: without dropout."""
    tensors = [arguments[name] for name in ("query", "key", "value")]
    is_asked = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return is_asked and not arguments.get("dropout_p") and all(x.dtype != torch.float64 for x in tensors)


def _compute_in_float32(func: Callable[..., Tensor], arguments: Mapping[str, Any]) -> Tensor:
    """Compute outside autocast; the result is of bfloat16, as it would be without this."""
    single: dict[str, Any] = {}
    for name, value in arguments.items():
        is_number = isinstance(value, Tensor) and value.is_floating_point()
        single[name] = value.float() if is_number else value
    with torch.autocast("cpu", enabled=False):
        return func(**single).to(torch.bfloat16)
