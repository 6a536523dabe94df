"""Convolutions of bfloat16 on CPUs whose output is one cell wide, computed in float32.

oneDNN, as torch 2.14.1 carries it for CPUs with AMX, leaves memory unwritten where a convolution of bfloat16 that is
not depthwise, with a horizontal stride above 1, has an output one cell wide: all rows of the output but the first, and
the gradient of the weight. Other widths, a stride of 1, float16 and float32 are right (measured for kernels of 1 to 5,
strides of 1 to 4, heights to 17, batches of 1 and 4, 32 to 256 channels). Such maps are the coarsest levels of narrow
images; in float32 they cost nothing that could be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def exact_narrow_maps(images: Tensor) -> AbstractContextManager[object]:
    """Return a context in which a network's convolutions of ``images`` have no unwritten memory.

    It does nothing but on a CPU, and there in bfloat16 alone, and under ``torch.compile`` not even there.
    """
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return nullcontext()
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return _NarrowMapsInFloat32() if autocast or images.dtype == torch.bfloat16 else nullcontext()


_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
"""Of ``torch.conv2d``, in their order."""


class _NarrowMapsInFloat32(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            arguments = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
            if arguments["input"].dtype != torch.float64 and _is_narrow(arguments):
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


def _horizontal(value: Any) -> int:
    return int(value if isinstance(value, int) else tuple(value)[-1])


def _convolve_in_float32(arguments: Mapping[str, Any]) -> Tensor:
    """Convolve outside autocast; the result is of bfloat16, as it would be without this."""
    single: dict[str, Any] = {}
    for name, value in arguments.items():
        single[name] = value.float() if isinstance(value, Tensor) else value
    with torch.autocast("cpu", enabled=False):
        return torch.conv2d(**single).to(torch.bfloat16)
