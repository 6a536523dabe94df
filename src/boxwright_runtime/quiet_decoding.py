"""Decoders that print nothing: what they complain about is an error of ours, with the name of the file, or nothing."""

from __future__ import annotations

import ctypes
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from PIL import Image

_WARNINGS_OF_PILLOW: Any = ("ignore", None, UserWarning, re.compile(r"PIL\."), 0)
"""A filter; the warning of too many pixels is no UserWarning, and stays for those who want it as an error."""


class _Silence:
    """Silence of libtiff and of Pillow for as long as anybody wants it; both are of the whole process.

    The filters are changed without ``warnings.catch_warnings``, which threads undo for each other, and after which
    every warning of the process counts as not yet shown.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.wanted = 0
        self.filters: Any = None
        self.handler: Any = None

    def begin(self) -> None:
        with self.lock:
            self.wanted += 1
            if self.wanted == 1:
                self.filters = warnings.filters
                self.filters.insert(0, _WARNINGS_OF_PILLOW)
                self.handler = _set_tiff_handler(None)

    def end(self) -> None:
        with self.lock:
            self.wanted -= 1
            if self.wanted == 0:
                if _WARNINGS_OF_PILLOW in self.filters:
                    self.filters.remove(_WARNINGS_OF_PILLOW)
                _set_tiff_handler(self.handler)


_silence = _Silence()


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Keep libtiff from writing to standard error, and Pillow from warning of damaged tags, which say no file's name.

    May be entered by several threads at once, and within itself.
    """
    _silence.begin()
    try:
        yield
    finally:
        _silence.end()


def _find_tiff_setter() -> Any:
    """Return libtiff's own function that sets the handler of its errors; None where Pillow does not show it."""
    pillow: Any = Image
    try:
        setter = ctypes.CDLL(pillow.core.__file__).TIFFSetErrorHandler
    except (AttributeError, OSError, TypeError):  # built in, or without libtiff
        return None
    setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    return setter


_tiff_setter = _find_tiff_setter()


def _set_tiff_handler(handler: int | None) -> int | None:
    """Set a handler of libtiff's errors, none of which is lost: Pillow raises them. Return the one before."""
    previous: int | None = None if _tiff_setter is None else _tiff_setter(handler)
    return previous
