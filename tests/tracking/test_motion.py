"""The filter of boxes against one of matrices, and its predictions over parts of a time."""

from __future__ import annotations

import numpy as np
import pytest

from boxwright.tracking.motion import (
    REFERENCE_RATE,
    States,
    begin_states,
    correct_states,
    keep_height,
    predict_states,
    state_boxes,
)

BOXES = np.array([[10.0, 20, 50, 100], [0, 0, 30, 10], [200, 300, 231, 377]])


class FilterOfMatrices:
    """One box in the filter as papers write it, with frames as the unit of time."""

    def __init__(self, box: np.ndarray) -> None:
        measured = self.measure(box)
        h = measured[3]
        self.mean = np.concatenate([measured, np.zeros(4)])
        self.covariance = np.diag(np.square([h / 10, h / 10, 1e-2, h / 10, h / 16, h / 16, 1e-5, h / 16]))

    @staticmethod
    def measure(box: np.ndarray) -> np.ndarray:
        width, height = box[2:] - box[:2]
        return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width / height, height])

    def predict(self) -> None:
        h = self.mean[3]
        noise = np.diag(np.square([h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]))
        motion = np.eye(8) + np.eye(8, k=4)
        self.mean = motion @ self.mean
        self.covariance = motion @ self.covariance @ motion.T + noise

    def correct(self, box: np.ndarray) -> None:
        h, seen = self.mean[3], np.eye(4, 8)
        innovation = seen @ self.covariance @ seen.T + np.diag(np.square([h / 20, h / 20, 1e-1, h / 20]))
        gain = self.covariance @ seen.T @ np.linalg.inv(innovation)
        self.mean = self.mean + gain @ (self.measure(box) - seen @ self.mean)
        self.covariance = self.covariance - gain @ innovation @ gain.T


def assert_equal(states: States, filters: list[FilterOfMatrices]) -> None:
    for state, one in zip(states, filters, strict=True):
        rate = REFERENCE_RATE
        np.testing.assert_allclose(state[:, 0], one.mean[:4], rtol=1e-9)
        np.testing.assert_allclose(state[:, 1] / rate, one.mean[4:], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state[:, 2], np.diag(one.covariance)[:4], rtol=1e-9)
        np.testing.assert_allclose(state[:, 3] / rate, np.diag(one.covariance, k=4), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(state[:, 4] / rate**2, np.diag(one.covariance)[4:], rtol=1e-9)


def test_at_30_hz_it_is_the_filter_of_matrices() -> None:
    rng = np.random.default_rng(0)
    states, filters = begin_states(BOXES), [FilterOfMatrices(box) for box in BOXES]
    assert_equal(states, filters)
    for step in range(20):
        states = predict_states(states, 1 / 30)
        boxes = BOXES + step * np.array([2.0, -1, 2.5, -1]) + rng.normal(0, 0.5, BOXES.shape)
        for one in filters:
            one.predict()
        if step % 4:
            states = correct_states(states, boxes)
            for one, box in zip(filters, boxes, strict=True):
                one.correct(box)
        assert_equal(states, filters)


@pytest.mark.parametrize("parts", [(0.1,), (1 / 30, 1 / 30, 1 / 30), (0.013, 0.087), (0.0, 0.1), (0.04, 0.01, 0.05)])
def test_a_prediction_is_that_over_its_parts(parts: tuple[float, ...]) -> None:
    states = predict_states(begin_states(BOXES), 1 / 30)
    states = correct_states(states, BOXES + np.array([3.0, 1, 3, 1]))
    keep_height(states)
    expected = predict_states(states, 0.1)
    for seconds in parts:
        states = predict_states(states, seconds)
    np.testing.assert_allclose(states, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 1 / 60, 1 / 30, 0.5, 60.0])
def test_covariances_stay_positive(seconds: float) -> None:
    states = predict_states(begin_states(BOXES), seconds)
    assert (states[..., 2] > 0).all()
    assert (states[..., 4] > 0).all()
    assert (states[..., 2] * states[..., 4] > states[..., 3] ** 2).all()


def test_boxes_come_back() -> None:
    np.testing.assert_allclose(state_boxes(begin_states(BOXES)), BOXES)


def test_velocity_is_learned_in_pixels_per_second() -> None:
    states = begin_states(BOXES[:1])
    for step in range(1, 40):
        states = correct_states(predict_states(states, 0.1), BOXES[:1] + 6.0 * step * np.array([1, 0, 1, 0]))
    np.testing.assert_allclose(states[0, :, 1], [60, 0, 0, 0], atol=1e-2)
