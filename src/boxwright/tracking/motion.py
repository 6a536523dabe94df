"""The motion of boxes: a Kalman filter of constant velocity, in seconds.

The filter of SORT and ByteTrack has an 8 x 8 covariance, but its noise and its first covariance are diagonal, and its
motion couples each coordinate with its own velocity alone: it is four filters of two numbers each, which are written
out here for all tracks at once.

**Source**: Wojke et al., "Simple Online and Realtime Tracking with a Deep Association Metric" (2017), section 2.1, with
the weights of ByteTrack's code, whose unit of time is a frame at 30 Hz. A prediction over n / 30 seconds is what n of
their predictions in a row are, and any prediction is equal to two over its parts.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

REFERENCE_RATE = 30.0
"""Frames per second for which the noise of ByteTrack is meant."""

States: TypeAlias = Float64[np.ndarray, "n 4 5"]
"""Coordinates (center x, center y, width by height, height) of each track, and of each of them: value, velocity per
second, variance of the value, covariance of both, variance of the velocity."""

_VALUE, _VELOCITY, _VARIANCE, _COVARIANCE, _VELOCITY_VARIANCE = range(5)

_POSITION_STD, _VELOCITY_STD = 1 / 20, 1 / 160
"""Standard deviations for a height of 1: of a position, and of a velocity per reference frame."""

_ASPECT, _HEIGHT = 2, 3


def begin_states(boxes: Float64[np.ndarray, "n 4"]) -> States:
    """Return the states of tracks that begin with boxes, at rest."""
    measured = _measure(boxes)
    states = np.zeros((len(measured), 4, 5))
    states[..., _VALUE] = measured
    states[..., _VARIANCE] = _squares(measured[:, _HEIGHT], 2 * _POSITION_STD, 1e-2)
    states[..., _VELOCITY_VARIANCE] = _squares(measured[:, _HEIGHT], 10 * _VELOCITY_STD, 1e-5) * REFERENCE_RATE**2
    return states


def predict_states(states: States, seconds: float) -> States:
    """Predict states after some time.

    Of n frames, the noise of velocities adds up to n, that of values to n of their own and, by the velocities of the
    frames before, to 0 + 1 + 4 + ... + (n - 1)^2; the closed forms hold for parts of a frame as well.
    """
    frames = seconds * REFERENCE_RATE
    of_value = _squares(states[:, _HEIGHT, _VALUE], _POSITION_STD, 1e-2)
    of_velocity = _squares(states[:, _HEIGHT, _VALUE], _VELOCITY_STD, 1e-5)
    value, velocity, variance, covariance, velocity_variance = np.moveaxis(states, 2, 0)
    predicted = np.empty_like(states)
    predicted[..., _VALUE] = value + seconds * velocity
    predicted[..., _VELOCITY] = velocity
    predicted[..., _VARIANCE] = variance + seconds * (2 * covariance + seconds * velocity_variance)
    predicted[..., _VARIANCE] += frames * of_value + frames * (frames - 1) * (2 * frames - 1) / 6 * of_velocity
    predicted[..., _COVARIANCE] = covariance + seconds * velocity_variance
    predicted[..., _COVARIANCE] += frames * (frames - 1) / 2 * of_velocity * REFERENCE_RATE
    predicted[..., _VELOCITY_VARIANCE] = velocity_variance + frames * of_velocity * REFERENCE_RATE**2
    return predicted


def correct_states(states: States, boxes: Float64[np.ndarray, "n 4"]) -> States:
    """Correct predicted states by the box that was detected for each."""
    value, velocity, variance, covariance, velocity_variance = np.moveaxis(states, 2, 0)
    innovation_variance = variance + _squares(states[:, _HEIGHT, _VALUE], _POSITION_STD, 1e-1)
    gain, velocity_gain = variance / innovation_variance, covariance / innovation_variance
    innovation = _measure(boxes) - value
    corrected = np.empty_like(states)
    corrected[..., _VALUE] = value + gain * innovation
    corrected[..., _VELOCITY] = velocity + velocity_gain * innovation
    corrected[..., _VARIANCE] = variance - gain * variance
    corrected[..., _COVARIANCE] = covariance - gain * covariance
    corrected[..., _VELOCITY_VARIANCE] = velocity_variance - velocity_gain * covariance
    return corrected


def keep_height(states: States) -> None:
    """Set the velocity of heights to zero: an object that is not seen would grow, or vanish."""
    states[:, _HEIGHT, _VELOCITY] = 0


def state_boxes(states: States) -> Float64[np.ndarray, "n 4"]:
    """Return the corners of boxes."""
    centers, heights = states[:, :2, _VALUE], states[:, _HEIGHT, _VALUE]
    halves = np.stack((states[:, _ASPECT, _VALUE] * heights, heights), 1) / 2
    boxes: Float64[np.ndarray, "n 4"] = np.concatenate((centers - halves, centers + halves), 1)
    return boxes


def _measure(boxes: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
    """Coordinates of a state, from corners."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centers = boxes[:, :2] + sides / 2
    coordinates: Float64[np.ndarray, "n 4"] = np.column_stack((centers, sides[:, 0] / sides[:, 1], sides[:, 1]))
    return coordinates


def _squares(heights: Float64[np.ndarray, " n"], std: float, aspect_std: float) -> Float64[np.ndarray, "n 4"]:
    """Variances of the coordinates: by the height, and one of their own for width by height."""
    of_height = np.square(std * heights)
    variances = np.stack((of_height, of_height, of_height, of_height), 1)
    variances[:, _ASPECT] = aspect_std**2
    return variances
