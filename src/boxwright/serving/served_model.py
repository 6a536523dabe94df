"""Models behind a service: an exported file without torch, or a detector."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxwright.version import __version__
from boxwright.workflows.observer import Observer
from boxwright_runtime import Category, Runtime
from boxwright_runtime.exported_file import is_exported_name
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.streaming import PredictPrepared, Prepare
from boxwright_runtime.structures import Task

if TYPE_CHECKING:
    from boxwright.detector import Detector
    from boxwright.devices import ComputeOptions


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model as a service needs it.

    Args:
        task: of the model.
        categories: label i means ``categories[i]``.
        input_format: of the network.
        thresholds: that were tuned, of each class, by its label; None where they were not.
        has_masks: detections have masks.
        can_fork: processes that are forked from the one that loaded it can predict.
        facts: about its origin, for clients.
        prepare: from RGB to what the model takes; images of equal shape may share a batch.
        predict: all detections of what was prepared.
    """

    task: Task
    categories: tuple[Category, ...]
    input_format: InputFormat
    thresholds: tuple[float, ...] | None
    has_masks: bool
    can_fork: bool = True
    facts: Mapping[str, Any]
    prepare: Prepare
    predict: PredictPrepared

    def describe(self) -> dict[str, Any]:
        """Return all that clients may know, as plain values."""
        names = [one.name for one in self.categories]
        return {
            "service": f"boxwright {__version__}",
            "task": self.task,
            "masks": self.has_masks,
            "categories": [asdict(one) for one in self.categories],
            "thresholds": None if self.thresholds is None else dict(zip(names, self.thresholds, strict=True)),
            "input": asdict(self.input_format),
            **self.facts,
        }


def open_model(
    model: str | Path | Detector | Runtime,
    *,
    threads: int | None = None,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ServedModel:
    """Open a model for a service; of an exported file, neither torch nor anything that needs it is imported.

    Args:
        model: any source that ``boxwright.load`` takes, a detector, an exported file or a ``Runtime``.
        threads: that the model computes with on the CPU; as many as it takes by itself where None.
        device: of a model; for exported files auto or cpu.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears what was assumed; notes become warnings where None.
        overrides: changes of the model's recipe.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: neither a model nor an exported file, or a damaged one; or an argument is not for it.
    """
    if isinstance(model, str | Path) and is_exported_name(model):
        if device != "auto" or overrides:
            from boxwright.workflows.exported import check_file_options

            check_file_options(model, device=device, overrides=overrides)
        model = Runtime(model, threads=threads)
    if isinstance(model, Runtime):
        return _serve_runtime(model)
    from boxwright.serving.served_detector import open_detector

    return open_detector(
        model, threads=threads, device=device, trusted=trusted, observer=observer or Observer(), overrides=overrides
    )


def _serve_runtime(runtime: Runtime) -> ServedModel:
    own = runtime.metadata
    return ServedModel(
        task=own.task,
        categories=own.categories,
        input_format=own.input_format,
        thresholds=None if own.thresholds is None else runtime.thresholds(),
        has_masks=own.masks is not None,
        can_fork=runtime.runtime == "onnxruntime",  # OpenVINO's threads do not survive it
        facts={
            "runtime": runtime.runtime,
            "version": own.version,
            "precision": own.precision,
            "recipe": own.recipe,
            "passport": own.passport,
        },
        prepare=runtime.prepare,
        predict=runtime.predict_prepared,
    )
