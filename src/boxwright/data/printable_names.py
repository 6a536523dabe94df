"""Names of files as they can be shown: on one line, in any encoding, and not too long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_LONGEST = 240


def printable(name: Path | str) -> str:
    """Return a name with escapes for whatever cannot be shown, and without its middle where it is very long."""
    text = str(name)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 4 :]} ({len(text):,} characters)"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def first_names(names: Sequence[str], count: int = 3) -> str:
    """Join the first few of some names, for a message."""
    return ", ".join(map(printable, names[:count])) + (", ..." if len(names) > count else "")
