"""Text on its way to the terminal: nothing in a name of a class or a file commands it, and every encoding takes it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from boxwright.files import is_standard_output, write_text
from boxwright_runtime.printable_names import printable_text

LONGEST = 6_000
"""Letters of an error."""


def show(text: str, *, error: bool = False) -> None:
    """Print lines to standard output or standard error, with escapes for what is no visible letter."""
    print("\n".join(map(printable_text, text.split("\n"))), file=sys.stderr if error else sys.stdout)


def join_lines(text: str) -> str:
    """Bring a message to one line, without its middle where it is very long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 4 :]}"


def quote_command(*words: str | Path) -> str:
    """Write a command as it can be pasted into a shell."""
    return shlex.join(["boxwright", *map(str, words)])


def quote_path(path: str | Path) -> str:
    """Write a path so that no command takes it for an option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


def json_target(option: str | None) -> Path | None:
    """Return the file that ``--json`` names; ``-`` is standard output."""
    if not option:
        return None
    return Path("/dev/stdout" if option == "-" else option)


def is_piped(target: Path | None) -> bool:
    """Tell whether JSON goes to standard output: what is read by a program holds nothing else.

    Args:
        target: of the JSON; None where none was asked for.
    """
    return target is not None and is_standard_output(target)


def write_json(target: Path | None, content: object) -> None:
    """Write what was asked for by ``--json``.

    Args:
        target: nothing is written where None.
        content: plain values.
    """
    if target is not None:
        write_text(target, json.dumps(content, indent=2) + "\n")


@contextmanager
def any_encoding() -> Iterator[None]:
    """Let standard output and error write escapes for letters that their encoding does not have."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            with suppress(ValueError, OSError):  # It is closed, or its reader has gone.
                stream.reconfigure(errors=errors)


def leave_closed_pipes() -> None:
    """Let what is still to be written, now or when Python ends, go nowhere where a reader has gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _redirect_to_nowhere(stream)


def _redirect_to_nowhere(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
