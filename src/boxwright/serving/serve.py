"""Serving: a model behind an address, in one process or several that have its weights in common."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxwright.serving.listening import listen
from boxwright.serving.options import ServingOptions
from boxwright.serving.served_model import open_model
from boxwright.workflows.observer import Observer

if TYPE_CHECKING:
    from boxwright.detector import Detector
    from boxwright.devices import ComputeOptions
    from boxwright_runtime import Runtime

LARGEST_WORKERS = 256


def serve(
    model: str | Path | Detector | Runtime,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    options: ServingOptions | None = None,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Serve a model over HTTP until SIGTERM or SIGINT; what was taken until then is finished.

    Args:
        model: any source that ``boxwright.load`` takes, a detector, an exported file or a ``Runtime``.
        host: address to listen at; this machine alone by default.
        port: to listen at; any free one where 0.
        workers: processes. With more than one, they are forked from one that has loaded the model, whose weights they
            have in common, and each computes with one thread of the CPU.
        options: bounds of each process, and defaults.
        device: of a model; for exported files auto or cpu.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears the address once all processes are ready; notes become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is no model, an argument is out of range, or the address cannot be listened at.
    """
    require_serving()
    options, observer = options or ServingOptions(), observer or Observer()
    if not 1 <= workers <= LARGEST_WORKERS:
        raise ValueError(f"workers are from 1 to {LARGEST_WORKERS}, not {workers}")
    if workers > 1 and not callable(getattr(os, "fork", None)):
        raise ValueError("several workers need a system that forks processes: leave out workers")
    with listen(host, port) as listener:
        served = open_model(
            model,
            threads=1 if workers > 1 else None,
            device=device,
            trusted=trusted,
            observer=observer,
            overrides=overrides,
        )
        if workers > 1 and not served.can_fork:
            raise ValueError(
                "several workers have one model in common, which OpenVINO and GPUs do not allow: leave out workers, or "
                "start several services"
            )
        from boxwright.serving.processes import run_alone, run_workers

        if workers == 1:
            run_alone(served, options, listener, observer)
        else:
            run_workers(served, options, listener, observer, workers)


def require_serving() -> None:
    """Raise ``ValueError`` where the packages of a server are not installed."""
    from importlib.util import find_spec

    for name in ("starlette", "uvicorn", "python_multipart"):
        if find_spec(name) is None:
            raise ValueError(f"{name.replace('_', '-')} is not installed: pip install 'boxwright[serve]'")
