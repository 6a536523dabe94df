"""The folder for what Boxwright remembers between its runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$BOXWRIGHT_CACHE``, else ``~/.cache/boxwright``; it need not exist.

    Raises:
        RuntimeError: the user has no home folder.
    """
    named = os.environ.get("BOXWRIGHT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "boxwright"
