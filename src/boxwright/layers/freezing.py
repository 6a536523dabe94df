"""Norms of frozen parts, whose statistics are frozen too."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def frozen_norms(module: nn.Module) -> Iterator[nn.Module]:
    """List the batch norms whose own parameters are all frozen, or that are within a part whose parameters all are.

    A module without parameters is neither frozen nor not; what surrounds it decides.
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield from (inner for inner in module.modules() if isinstance(inner, _BatchNorm))
    else:
        for child in module.children():
            yield from frozen_norms(child)
