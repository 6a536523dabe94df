"""Construction of parts within bounds: a number in a recipe must not take all memory, or build layers for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from torch import Tensor, nn
from torch.nn.modules import module as modules

MAX_PARAMETERS = 6_000
"""Tensors of parameters of a detector; those of the largest recipe are a fifth."""

MAX_BYTES = 2**35
"""Of all parameters and buffers, where the system does not say how much memory it has."""


class TooLargeError(ValueError):
    """A detector that is larger than can be built here."""


@contextmanager
def limited_size() -> Iterator[None]:
    """Raise ``TooLargeError`` in the block once the modules that this thread constructs are too many or too large.

    Tensors without storage (``torch.device("meta")``) count like others.
    """
    _count_registered_tensors()
    before = getattr(_ACTIVE, "size", None)
    _ACTIVE.size = _Size(_memory())
    try:
        yield
    finally:
        _ACTIVE.size = before


class _Size:
    def __init__(self, memory: int) -> None:
        self.memory, self.bytes, self.parameters = memory, 0, 0

    def add(self, tensor: Tensor) -> None:
        self.bytes += tensor.numel() * tensor.element_size()
        self.parameters += isinstance(tensor, nn.Parameter)
        if self.bytes > self.memory:
            raise TooLargeError(
                f"the detector would take more than {self.bytes / 2**30:,.0f} GiB for its weights alone, and at most "
                f"{self.memory / 2**30:,.0f} GiB of this machine are for that; make its numbers smaller"
            )
        if self.parameters > MAX_PARAMETERS:
            raise TooLargeError(
                f"the detector would have more than {MAX_PARAMETERS:,} tensors of weights; make its numbers smaller"
            )


_ACTIVE = threading.local()
"""The size that the modules of a thread are added to, as ``size``; None where they are not limited."""


@cache
def _count_registered_tensors() -> None:
    """Hear of all tensors that modules get, from now on: hooks that come and go would disturb other threads."""
    modules.register_module_parameter_registration_hook(_count)
    modules.register_module_buffer_registration_hook(_count)


def _count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
    size = getattr(_ACTIVE, "size", None)
    if size is not None and tensor is not None:
        size.add(tensor)


def _memory() -> int:
    """Return half of the machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):  # Windows
        return MAX_BYTES
