"""Equality of checkpoints, bit by bit."""

from __future__ import annotations

from typing import Any

import torch

CLOCK = ("seconds", "evaluation_seconds", "images_per_second")
"""Values that depend on how fast the machine is, in checkpoints and in the log."""


def assert_equal(first: Any, second: Any, path: str = "") -> None:
    """The same types and values, tensors bit by bit, through dictionaries and lists; but for the ``CLOCK``."""
    assert type(first) is type(second), path
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype, path
        assert torch.equal(first, second), path
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first.keys() - set(CLOCK):
            assert_equal(first[key], second[key], f"{path}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), path
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{path}.{i}")
    else:
        assert first == second, path


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a log without the ``CLOCK``."""
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]
