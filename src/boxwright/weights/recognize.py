"""Recognition of the kind of a source."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from boxwright.weights.source import SourceFiles
from boxwright.weights.table import TableError

_FOLDER = Path(__file__).parent / "sources"

SHOWN_NAMES = 3
"""Names of tensors in an error, of many."""


def list_kinds() -> list[str]:
    """List the kinds of sources, in alphabetical order. Imports none of them."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_"))


def find_kind(name: str) -> Any:
    """Make the source of a kind: an instance of the one class in the ``__all__`` of its file."""
    module = import_module(f"boxwright.weights.sources.{name}")
    (class_name,) = module.__all__
    return getattr(module, class_name)()


def recognize(files: SourceFiles) -> tuple[str, Any]:
    """Find the kind of files: its name, and the source.

    Raises:
        ValueError: no kind or several; the line says which were tried and the first names of tensors.
    """
    fitting = [(name, source) for name, source in _sources() if source.recognizes(files)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(list(files.tensors)[:SHOWN_NAMES]) or "none"
    if fitting:
        kinds = " and ".join(name for name, _ in fitting)
        raise ValueError(f"{files.origin.source}: fits {kinds}, and can be only one; its first tensors are {names}")
    raise ValueError(
        f"{files.origin.source}: weights of no known kind (tried {', '.join(list_kinds())}); "
        f"its first tensors of {len(files.tensors)} are {names}"
    )


@contextmanager
def errors_in_one_line(files: SourceFiles, source: Any) -> Iterator[None]:
    """Turn every error that files cause in their source into a ``ValueError`` of one line: what is recognized by a few
    names may lack any other, and state anything.
    """
    name = files.origin.source
    try:
        yield
    except TableError as error:
        raise ValueError(f"{name}: recognized as {source.title}, but {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 120, placeholder=" ...")
        raise ValueError(
            f"{name}: recognized as {source.title}, but tensors or configuration are not those of one ({reason})"
        ) from error


@contextmanager
def assumptions_in_errors(assumptions: Sequence[str]) -> Iterator[None]:
    """Add to an error what was assumed of the files, which may be its cause, and the options that say otherwise."""
    try:
        yield
    except ValueError as error:
        if not assumptions:
            raise
        kind = TableError if isinstance(error, TableError) else ValueError
        raise kind(f"{error}; it was assumed: {'; '.join(assumptions)}") from error


def _sources() -> Iterator[tuple[str, Any]]:
    for name in list_kinds():
        yield name, find_kind(name)
