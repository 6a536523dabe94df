"""Names of files as they can be shown: on one line, in any encoding, and not too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 240
_LONGEST_MESSAGE = 1800


def printable(name: Path | str) -> str:
    """Return a name with escapes for whatever cannot be shown, and without its middle where it is very long."""
    text = str(name)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 4 :]} ({len(text):,} characters)"
    return printable_text(text)


def printable_text(text: str) -> str:
    """Return a text with escapes for whatever cannot be shown."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def first_names(names: Sequence[str], count: int = 3) -> str:
    """Join the first few of some names, for a message."""
    return ", ".join(map(printable, names[:count])) + (", ..." if len(names) > count else "")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise ValueError and OSError of the block with messages that can be shown, on one line, and not too long."""
    try:
        yield
    except (ValueError, OSError) as error:
        message = str(error)
        if message.isprintable() and 0 < len(message) <= _LONGEST_MESSAGE:
            raise
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[: _LONGEST_MESSAGE // 2]}...{message[-_LONGEST_MESSAGE // 4 :]}"
        message = printable_text(message) or type(error).__name__
        raise (FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError)(message) from error
