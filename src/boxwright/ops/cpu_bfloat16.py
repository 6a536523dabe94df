"""Convolutions of bfloat16 on CPUs that are computed in float32, because oneDNN computes them wrong or slowly.

Wrong: as torch 2.14.1 carries it for CPUs with AMX, oneDNN leaves memory unwritten where a convolution of bfloat16 that
is not depthwise, with a horizontal stride above 1, has an output one cell wide: all rows of the output but the first,
and the gradient of the weight. Other widths, a stride of 1, float16 and float32 are right (measured for kernels of 1 to
5, strides of 1 to 4, heights to 17, batches of 1 and 4, 32 to 256 channels). Such maps are the coarsest levels of
narrow images; in float32 they cost nothing that could be measured.

Slowly: the gradients of depthwise convolutions with kernels above 3 or strides above 1 take 3 to 6 times as long in
bfloat16, conversions included (4 to 9 times without them; forward, and for kernels of 3 at a stride of 1, bfloat16 is
as fast). A step of Faster R-CNN on EfficientNet-Lite0 at 256 pixels takes 0.41 s instead of 0.52 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def cpu_convolutions(images: Tensor) -> AbstractContextManager[object]:
    """Return a context in which a network's convolutions of ``images`` are right, and fast where they are trained.

    It does nothing but on a CPU, and there in bfloat16 alone, and under ``torch.compile`` not even there.
    """
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return nullcontext()
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return _SomeInFloat32() if autocast or images.dtype == torch.bfloat16 else nullcontext()


_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
"""Of ``torch.conv2d``, in their order."""


class _SomeInFloat32(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            arguments = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
            if arguments["input"].dtype != torch.float64 and (_is_narrow(arguments) or _is_slow(arguments)):
                return _convolve_in_float32(arguments)
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


def _convolve_in_float32(arguments: Mapping[str, Any]) -> Tensor:
    """Convolve outside autocast; the result is of bfloat16, as it would be without this."""
    single: dict[str, Any] = {}
    for name, value in arguments.items():
        single[name] = value.float() if isinstance(value, Tensor) else value
    with torch.autocast("cpu", enabled=False):
        return torch.conv2d(**single).to(torch.bfloat16)
