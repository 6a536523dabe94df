"""Search for the layers that have to stay in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Measured = TypeVar("Measured")

FIRST_FRACTION = 8
"""The first try keeps one layer of so many."""


@dataclass(frozen=True)
class LayerTry(Generic[Measured]):
    """A conversion that was measured.

    Args:
        float32: the layers that stayed in float32.
        is_good: whether it lost no more than it may.
        result: of the measurement.
    """

    float32: tuple[str, ...]
    is_good: bool
    result: Measured = field(compare=False)


def search_layers(
    ranked: Sequence[str], measure: Callable[[tuple[str, ...]], LayerTry[Measured]], *, most_tries: int
) -> list[LayerTry[Measured]]:
    """Search for the fewest of the worst layers that have to stay in float32, by bisection of their number.

    Args:
        ranked: layers, those with the largest errors first.
        measure: converts with these layers in float32, and measures what comes of it.
        most_tries: measurements at most.

    Returns:
        all tries, in their order; the last good one has the fewest layers of the good ones.
    """
    tries: list[LayerTry[Measured]] = []
    bad, good = 0, len(ranked) + 1
    count = max(1, len(ranked) // FIRST_FRACTION)
    while len(tries) < most_tries and good - bad > 1:
        tries.append(measure(tuple(ranked[:count])))
        if tries[-1].is_good:
            good = count
            count = (bad + good) // 2
        else:
            bad = count
            count = min(len(ranked), 4 * count) if good > len(ranked) else (bad + good) // 2
        if count in (bad, good):
            break
    return tries
