"""Operations that are computed in float32 although bfloat16 was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from torch import Tensor

from boxwright.ops import cpu_bfloat16


def listen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that the shape of the first argument of each of them is added to."""
    shapes: list[tuple[int, ...]] = []
    real = cpu_bfloat16._compute_in_float32

    def observed(func: Callable[..., Tensor], arguments: Mapping[str, Any]) -> Tensor:
        shapes.append(tuple(next(iter(arguments.values())).shape))
        return real(func, arguments)

    monkeypatch.setattr(cpu_bfloat16, "_compute_in_float32", observed)
    return shapes
