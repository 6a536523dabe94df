"""Tuned scores of a model: the threshold of each class, the scale of its scores, and the data that tuned them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from boxwright.passport import TrainingData
from boxwright.structures import Category


@dataclass(frozen=True, kw_only=True)
class ScoreTuning:
    """Thresholds of a model's classes, and functions of their scores to fractions of detections that are right.

    Args:
        target: that the thresholds reach: ``f1``, ``precision=0.9``, ``recall=0.95``.
        thresholds: least score of detections of each class, in [0, 1].
        temperatures: of each class: sigmoid(logit(score) / temperature + shift) is the fraction of detections with
            this score that are right.
        shifts: of each class, in logits.
        data: the split that they were tuned on.
    """

    target: str
    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]
    shifts: tuple[float, ...]
    data: TrainingData

    def __post_init__(self) -> None:
        if not len(self.thresholds) == len(self.temperatures) == len(self.shifts):
            raise ValueError("there are not as many thresholds, temperatures and shifts")
        if not all(0 <= one <= 1 for one in self.thresholds):
            raise ValueError("thresholds are between 0 and 1")
        if not all(0 < one < math.inf for one in self.temperatures) or not all(map(math.isfinite, self.shifts)):
            raise ValueError("temperatures are above 0, and shifts finite")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as checkpoints have them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], num_classes: int) -> ScoreTuning:
        """Read plain values.

        Raises:
            ValueError: they are no tuning of a model with so many classes.
        """
        numbers = {name: _read_numbers(content.get(name), name) for name in ("thresholds", "temperatures", "shifts")}
        target, data = content.get("target"), content.get("data")
        if len(numbers["thresholds"]) != num_classes or not isinstance(target, str) or not isinstance(data, Mapping):
            raise ValueError(f"tuned scores that are not those of its {num_classes} classes")
        return cls(target=target, data=TrainingData.from_dict(data), **numbers)

    def by_name(self, categories: Sequence[Category]) -> dict[str, dict[str, float]]:
        """Return thresholds, temperatures and shifts by the names of the classes, as exported files have them."""
        names = [category.name for category in categories]
        values = {"thresholds": self.thresholds, "temperatures": self.temperatures, "shifts": self.shifts}
        return {name: dict(zip(names, numbers, strict=True)) for name, numbers in values.items()}


def _read_numbers(values: Any, name: str) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or not all(type(one) in (int, float) for one in values):
        raise ValueError(f"tuned scores whose {name} are no numbers")
    return tuple(map(float, values))
