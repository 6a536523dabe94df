"""Checks of options that many parts have in common: one line that says the value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def check_counts(counts: Mapping[str, int], *, least: int = 1) -> None:
    """Check that every count is at least ``least``.

    Raises:
        ValueError: one is not.
    """
    for name, value in counts.items():
        if value < least:
            raise ValueError(f"{name} is at least {least}, not {value}")


def check_fractions(fractions: Mapping[str, float], *, zero: bool = True) -> None:
    """Check that every fraction is in [0, 1]; without ``zero`` in (0, 1].

    Raises:
        ValueError: one is not.
    """
    for name, value in fractions.items():
        if not 0 <= value <= 1 or (value == 0 and not zero):
            raise ValueError(f"{name} is in {'[' if zero else '('}0, 1], not {value}")


def check_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Check that the value is one of those allowed.

    Raises:
        ValueError: it is not.
    """
    choices = list(allowed)
    if value not in choices:
        raise ValueError(f"{name} is one of {choices}, not {value!r}")


def check_hidden_dim(hidden_dim: int, num_heads: int, *, sine: bool = False) -> None:
    """Check that attention can divide the width into its heads, and a sine encoding, where there is one, into four.

    Raises:
        ValueError: it cannot.
    """
    if hidden_dim < 1 or hidden_dim % num_heads or (sine and hidden_dim % 4):
        multiples = f"4 and of num_heads ({num_heads})" if sine else f"num_heads ({num_heads})"
        raise ValueError(f"hidden_dim is a multiple of {multiples}, not {hidden_dim}")
