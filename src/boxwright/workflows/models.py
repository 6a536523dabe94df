"""Models as workflows are told of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from boxwright.detector import Detector
from boxwright.weights.model import build_model, read_model
from boxwright.workflows.observer import Observer


def load_detector(model: str | Path | Detector, *, trusted: Collection[str], observer: Observer) -> Detector:
    """Load a detector from any source, and tell the observer what was assumed; a detector itself stays as it is.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a model, or a damaged one.
    """
    if isinstance(model, Detector):
        return model
    weights = read_model(model, trusted=trusted)
    for note in weights.notes:
        observer.note(note)
    return build_model(weights)
