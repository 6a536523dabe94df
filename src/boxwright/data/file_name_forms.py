"""Forms of file names that may mean the same file."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import takewhile
from urllib.parse import unquote

from boxwright.data.findings import FindingKind

FILE_NAME_BACKSLASH = FindingKind("file_name_backslash", "note", "file names with backslashes, read as folders")
FILE_NAME_UNICODE = FindingKind("file_name_unicode", "note", "file names in another Unicode form than their files have")
FILE_NAME_PERCENT = FindingKind("file_name_percent", "note", "file names with percent-encoded letters")
FILE_NAME_CASE = FindingKind("file_name_case", "note", "file names in another upper and lower case than their files")
FILE_NAME_SUFFIX = FindingKind("file_name_suffix", "note", "file names with another suffix than their files, or none")
FILE_NAME_URL = FindingKind("file_name_url", "note", "file names that are addresses, found by their path")
FILE_NAME_PREFIX = FindingKind("file_name_prefix", "note", "file names that begin with the name of their folder")
FILE_NAME_LAST_PARTS = FindingKind(
    "file_name_last_parts",
    "warning",
    "file names of other folders, found by their last parts",
    "look whether these are the right images",
)
_SAME_KIND = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
_SUFFIXES = {*_SAME_KIND, *_SAME_KIND.values(), ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".avif", ".mpo"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/]*/+")
_DRIVE = re.compile(r"[A-Za-z]:")
_QUERY_PATH = re.compile(r"[?&]d=([^&]+)")
"""Part of Label Studio's addresses of local files: ``/data/local-files/?d=images/a.jpg``."""


Form = Callable[[str], str]
"""Returns what names of the same file have in common."""


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _decoded(name: str) -> str:
    return _nfc(unquote(name))


def lower_form(name: str) -> str:
    """Return a name in Unicode's form NFC, without percent-encoding, in lower case."""
    return _nfc(_decoded(name).casefold())


def _same_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(lower_form(name))
    return stem + _SAME_KIND.get(suffix, suffix)


def stem_form(name: str) -> str:
    """Return the form in lower case without the suffix of an image file."""
    stem, suffix = os.path.splitext(lower_form(name))
    return stem if suffix in _SUFFIXES else stem + suffix


def has_no_suffix(name: str) -> bool:
    """Return True for names without a suffix of image files."""
    return os.path.splitext(name)[1].lower() not in _SUFFIXES


NAME_FORMS: tuple[tuple[FindingKind | None, Form], ...] = (
    (None, str),
    (FILE_NAME_UNICODE, _nfc),
    (FILE_NAME_PERCENT, _decoded),
    (FILE_NAME_CASE, lower_form),
    (FILE_NAME_SUFFIX, _same_suffix),
    (FILE_NAME_SUFFIX, stem_form),
)
"""Kinds of difference between a name and its file, the smallest first, with the form that both have in common."""


def variants(name: str) -> Iterator[tuple[FindingKind | None, str]]:
    """Yield paths that a name may mean: itself, with forward slashes, and the path of an address."""
    yield None, name
    path = name.replace("\\", "/")
    if path != name:
        yield FILE_NAME_BACKSLASH, path
    query = _QUERY_PATH.search(path)
    if query is not None:
        yield FILE_NAME_URL, unquote(query[1])
    bare = _URL.sub("", path)
    if bare != path or "?" in path:
        yield FILE_NAME_URL, re.split(r"[?#]", bare)[0]


def path_inside(path: str) -> str | None:
    """Return a path in its shortest form; None where it leaves its folder."""
    parts = path_parts(path)
    outside = path.startswith("/") or ".." in parts or _DRIVE.match(path)
    return None if outside or not parts else "/".join(parts)


def path_parts(path: str) -> list[str]:
    """Return folders and file of a path."""
    return [part for part in path.split("/") if part not in ("", ".")]


def without_prefix(path: str, folder_names: set[str]) -> Iterator[str]:
    """Yield a path without its first folder, its first two, ..., while these are named as the folders around it."""
    parts = path.split("/")
    for count, part in enumerate(parts[:-1], start=1):
        if lower_form(part) not in folder_names:
            return
        yield "/".join(parts[count:])


def common_parts(one: str, other: str) -> int:
    """Count the last parts that two paths have in common."""
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
