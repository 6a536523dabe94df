"""The result of a comparison of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from boxwright.evaluation.comparison import EvaluationComparison
from boxwright.evaluation.evaluate import Evaluation


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """One of the compared.

    Args:
        name: as it was named; of a detector its position.
        evaluation: of it, with the labels of the first.
        params: number of parameters; None for a file.
        gmac: multiply-adds of prediction for one image, in billions; None for a file.
        latency_ms: median time of one image of 480 x 640 pixels, in milliseconds; None where it was not measured.
    """

    name: str
    evaluation: Evaluation
    params: int | None = None
    gmac: float | None = None
    latency_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, ready for ``json.dump``."""
        costs = {"params": self.params, "gmac": self.gmac, "latency_ms": self.latency_ms}
        return {"name": self.name, **costs, **self.evaluation.to_json()}


@dataclass(frozen=True, eq=False)
class CompareResult:
    """Models beside each other.

    Args:
        models: the compared, in their order.
        boxes: of each but the first, compared with the first.
        masks: likewise; empty where not all have masks.
    """

    models: tuple[ComparedModel, ...]
    boxes: tuple[EvaluationComparison, ...]
    masks: tuple[EvaluationComparison, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, ready for ``json.dump``."""
        content = {"boxes": [one.to_json() for one in self.boxes], "masks": [one.to_json() for one in self.masks]}
        return {"models": [one.to_json() for one in self.models], **content}
