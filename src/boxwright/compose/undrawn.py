"""Construction of modules without drawing their weights, for those that are loaded at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = frozenset(
    {
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.bernoulli_,
        Tensor.exponential_,
        Tensor.cauchy_,
        Tensor.log_normal_,
        Tensor.geometric_,
        Tensor.random_,
    }
)
"""Methods that fill a tensor with random numbers."""

_CONSTANTS = ("constant_", "ones_", "zeros_", "eye_", "dirac_")
"""Functions of ``torch.nn.init`` that draw nothing."""


class WithoutDraws(TorchFunctionMode):
    """Leave out what would fill tensors with random numbers, in this thread: their memory is as it was.

    Only for modules all of whose parameters are loaded afterward, see ``lacks_weights``. Constants and whatever else
    is computed are as always. The random number generator stays as it is.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor as it is instead of filling it; call everything else."""
        del types
        options = kwargs or {}
        if func in _DRAWS or _is_random_init(func):
            return args[0] if args else options["tensor"]
        return func(*args, **options)


def lacks_weights(module: nn.Module, tensors: Collection[str]) -> bool:
    """Tell whether a module has parameters that are not among the names of tensors, so that they have to be drawn."""
    return any(name not in tensors for name, _ in module.named_parameters())


def _is_random_init(func: Callable[..., Any]) -> bool:
    return getattr(func, "__module__", None) == torch.nn.init.__name__ and func.__name__ not in _CONSTANTS
