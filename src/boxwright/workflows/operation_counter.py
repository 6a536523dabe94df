"""Counts of floating-point operations of a network whose products are not computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

_ATEN = torch.ops.aten


class OperationCounter(TorchDispatchMode):
    """Counts in a block by the formulas of ``torch.utils.flop_counter``, whose counts it has, at a part of the time.

    Convolutions and matrix products give zeros of the shape of their result. All else is computed, so that what depends
    on values or on the device is as always. And torch's compiler is not imported, which takes seconds.

    Args:
        counted: other formulas by operator, as ``custom_mapping`` of ``FlopCounterMode``.
    """

    def __init__(self, counted: Mapping[Any, Callable[..., int]] | None = None) -> None:
        super().__init__()
        self._formulas = FlopCounterMode(display=False, custom_mapping=dict(counted or {})).flop_registry
        self._counts: Counter[str] = Counter()
        self._tracker = ModuleTracker()

    @property
    def total(self) -> int:
        """Operations in all."""
        return self._counts["Global"]

    @property
    def by_module(self) -> dict[str, int]:
        """Operations by the path of each module, which begins with the class of the outermost."""
        return {path: count for path, count in self._counts.items() if path != "Global"}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is called in the block."""
        # The math form of attention is two matrix products, which every release counts; fused forms it may not.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), self._tracker, self:
            yield

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Without this, torch imports its compiler in order to keep it away from the method below.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call an operator, unless it is a product, and count it."""
        del types
        options = kwargs or {}
        if func._overloadpacket not in self._formulas:
            return self._call_steps(func, args, options)
        result = _PRODUCTS[func](*args) if func in _PRODUCTS else func(*args, **options)
        operations = self._formulas[func._overloadpacket](*args, **options, out_val=result)
        for path in self._tracker.parents:
            self._counts[path] += operations
        return result

    def _call_steps(self, func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Call an operator that has no formula: in steps, which may have one, where torch knows them."""
        if func is _ATEN.upsample_nearest2d.default and _ATEN.mul not in self._formulas:
            return func(*args, **options)  # There is no product among its steps, which import sympy.
        with self:
            result = func.decompose(*args, **options)
        return func(*args, **options) if result is NotImplemented else result


def _convolve(
    images: Tensor,
    weight: Tensor,
    _bias: Tensor | None,
    strides: Sequence[int],
    paddings: Sequence[int],
    dilations: Sequence[int],
    is_transposed: bool,
    output_paddings: Sequence[int],
    groups: int,
) -> Tensor:
    extents = [dilation * (size - 1) for dilation, size in zip(dilations, weight.shape[2:], strict=True)]
    steps = zip(images.shape[2:], extents, strides, paddings, output_paddings, strict=True)
    if is_transposed:
        sizes = [(size - 1) * stride - 2 * pad + extent + more + 1 for size, extent, stride, pad, more in steps]
        return images.new_zeros((len(images), groups * weight.shape[1], *sizes))
    sizes = [(size + 2 * pad - extent - 1) // stride + 1 for size, extent, stride, pad, _ in steps]
    return images.new_zeros((len(images), len(weight), *sizes))


def _multiply(one: Tensor, other: Tensor) -> Tensor:
    return one.new_zeros((*one.shape[:-1], other.shape[-1]))


def _multiply_and_add(_: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return _multiply(one, other)


_PRODUCTS: Mapping[Any, Callable[..., Tensor]] = {
    _ATEN.convolution.default: _convolve,
    _ATEN.mm.default: _multiply,
    _ATEN.bmm.default: _multiply,
    _ATEN.addmm.default: _multiply_and_add,
    _ATEN.baddbmm.default: _multiply_and_add,
}
