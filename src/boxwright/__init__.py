"""Boxwright: object detectors built from interchangeable parts.

``boxwright.build("rtdetr_r18", num_classes=3)`` gives a fresh detector, ``boxwright.load(path)`` a trained
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxwright.compose.detectors import build, load

__all__ = ["__version__", "build", "load"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # On demand (PEP 562): `boxwright --help` must not wait for torch.
    if name in ("build", "load"):
        from boxwright.compose import detectors

        return getattr(detectors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
