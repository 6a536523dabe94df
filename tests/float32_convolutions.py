"""Convolutions that are computed in float32 although bfloat16 was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from boxwright.ops import cpu_bfloat16


def listen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that the shape of the input of each of them is added to."""
    shapes: list[tuple[int, ...]] = []
    real = cpu_bfloat16._convolve_in_float32

    def observed(arguments: Any) -> Tensor:
        shapes.append(tuple(arguments["input"].shape))
        return real(arguments)

    monkeypatch.setattr(cpu_bfloat16, "_convolve_in_float32", observed)
    return shapes
