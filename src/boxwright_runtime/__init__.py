"""Boxwright's exported files, run without torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boxwright_runtime.detections import Detection, Detections
    from boxwright_runtime.metadata import Metadata
    from boxwright_runtime.runtime import Runtime
    from boxwright_runtime.structures import Category

__all__ = ["Category", "Detection", "Detections", "Metadata", "Runtime"]

_HOMES = {
    "Category": "boxwright_runtime.structures",
    "Detection": "boxwright_runtime.detections",
    "Detections": "boxwright_runtime.detections",
    "Metadata": "boxwright_runtime.metadata",
    "Runtime": "boxwright_runtime.runtime",
}
"""The module of each public name, imported on demand (PEP 562): names of files can be read without NumPy."""


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
