"""Detections of a file without rounding: what is nearly the model's becomes it, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boxwright.exporting.certificate import Measurements
from boxwright.exporting.settled_detections import settle_detections
from boxwright_runtime.detections import Detections


def detect(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Make detections of rows (x1, y1, x2, y2, score, label)."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def rows(detections: Detections) -> list[list[float]]:
    columns = (detections.boxes, detections.scores[:, None], detections.labels[:, None])
    return np.concatenate([np.asarray(one, dtype=np.float64) for one in columns], 1).round(6).tolist()


MODEL = detect((10, 10, 50, 30, 0.8, 0), (60, 10, 90, 30, 0.6, 1))


def test_what_rounding_moves_becomes_the_models() -> None:
    # 0.03 of 40 pixels, and 4e-4 of a score.
    file = detect((10.03, 10, 50, 29.97, 0.8004, 0), (60, 10, 90.02, 30, 0.5997, 1))
    assert rows(settle_detections(MODEL, file)) == rows(MODEL)


@pytest.mark.parametrize(
    "row",
    [
        (10.05, 10, 50, 30, 0.8, 0),  # 1.25e-3 of its longest side
        (10, 10, 50, 30, 0.8006, 0),
        (10, 10, 50, 30, 0.8, 1),
    ],
)
def test_what_differs_by_more_stays(row: tuple[float, float, float, float, float, int]) -> None:
    assert rows(settle_detections(MODEL, detect(row))) == [[*row]]


def test_each_of_the_model_is_taken_once_and_the_best_come_first() -> None:
    twice = detect((10, 10, 50, 30, 0.8003, 0), (10.01, 10, 50, 30, 0.8002, 0), (60, 10, 90, 30, 0.6, 1))
    settled = settle_detections(MODEL, twice)
    assert rows(settled) == [[10.01, 10, 50, 30, 0.8002, 0], [10, 10, 50, 30, 0.8, 0], [60, 10, 90, 30, 0.6, 1]]


def test_nothing_on_either_side() -> None:
    assert len(settle_detections(MODEL, detect())) == 0
    assert rows(settle_detections(detect(), MODEL)) == rows(MODEL)


def test_faults_are_told_of_what_rounding_does_not_explain() -> None:
    measured = Measurements(of_model={"AP": 0.50}, of_file={"AP": 0.51}, classes=())
    assert measured.losses_beyond_rounding() == {"AP": pytest.approx(-1.0)}
    settled = Measurements(of_model={"AP": 0.50}, of_file={"AP": 0.51}, classes=(), settled={"AP": 0.5})
    assert (settled.losses(), settled.losses_beyond_rounding()) == ({"AP": pytest.approx(-1.0)}, {"AP": 0.0})
