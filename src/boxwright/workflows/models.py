"""Models as workflows are told of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from boxwright.detector import Detector
from boxwright.devices import ComputeOptions, choose_device
from boxwright.weights.model import build_model, read_model
from boxwright.workflows.exported import open_exported
from boxwright.workflows.observer import Observer
from boxwright_runtime import Runtime
from boxwright_runtime.exported_file import is_exported_name


def load_detector(
    model: str | Path | Detector,
    *,
    trusted: Collection[str],
    observer: Observer,
    overrides: Mapping[str, Any] | None = None,
) -> Detector:
    """Load a detector from any source, and tell the observer what was assumed; a detector itself stays as it is.

    Args:
        model: the source, or a detector.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears what was assumed, and what overrides change.
        overrides: changes of the model's recipe, as for ``boxwright.build``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a model, or a damaged one; or overrides of a detector that is built already.
    """
    if isinstance(model, Detector):
        if overrides:
            raise ValueError(f"overrides are for models that are read, not for a detector: {', '.join(overrides)}")
        return model
    weights = read_model(model, trusted=trusted, overrides=overrides)
    for note in weights.notes:
        observer.note(note)
    return build_model(weights)


def load_predictor(
    model: str | Path | Detector | Runtime,
    *,
    device: str | ComputeOptions,
    trusted: Collection[str],
    observer: Observer,
    overrides: Mapping[str, Any] | None = None,
) -> Detector | Runtime:
    """Open an exported file, by its name, or load a detector as ``load_detector`` does.

    Args:
        model: the source, a detector or a runtime; the latter two stay as they are.
        device: of a detector that is loaded; for exported files auto or cpu, and precision auto: they have their own.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears what was assumed, and what overrides change.
        overrides: changes of the model's recipe; an exported file has none.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: neither a model nor an exported file, or a damaged one; or an argument is not for it.
    """
    if isinstance(model, Runtime) or (not isinstance(model, Detector) and is_exported_name(model)):
        return open_exported(model, device=device, overrides=overrides)
    detector = load_detector(model, trusted=trusted, observer=observer, overrides=overrides)
    return detector if isinstance(model, Detector) else detector.to(choose_device(ComputeOptions.of(device).device))
