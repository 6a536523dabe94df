"""A model behind HTTP: an ASGI application with batches, bounds and a page to try it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boxwright.serving.application import app
    from boxwright.serving.options import ServingOptions

__all__ = ["ServingOptions", "app"]

_HOMES = {"ServingOptions": "boxwright.serving.options", "app": "boxwright.serving.application"}
"""The module of each public name, imported on demand (PEP 562): options are read without a server."""


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
