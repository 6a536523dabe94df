"""Threads that are alive, by the beginning of their names."""

from __future__ import annotations

import threading


def list_threads(prefix: str) -> list[str]:
    """List the names of threads that begin so."""
    return [one.name for one in threading.enumerate() if one.name.startswith(prefix)]
