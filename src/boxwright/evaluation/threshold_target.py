"""The aim of a threshold, as a user types it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """The aim of a threshold.

    Args:
        measure: the best F1; or a precision, with as much recall as there is; or a recall, with as much precision.
        value: the precision or recall, in (0, 1]; without meaning for F1.
    """

    measure: Literal["f1", "precision", "recall"] = "f1"
    value: float = 1.0

    def __str__(self) -> str:
        return self.measure if self.measure == "f1" else f"{self.measure}={self.value:g}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``f1``, ``precision=0.9`` or ``recall=0.95``.

        Raises:
            ValueError: it is none of these.
        """
        measure, _, number = text.partition("=")
        if text == "f1":
            return cls()
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if measure not in ("precision", "recall") or not 0 < value <= 1:
            raise ValueError(f"target is f1, precision=P or recall=R with a number above 0 and up to 1, not {text!r}")
        return cls("precision" if measure == "precision" else "recall", value)
