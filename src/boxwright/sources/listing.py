"""The images that a text means: a file, a folder, a glob, a list, an archive, or the address of any of these."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from boxwright.sources.archives import ARCHIVES, COMPRESSED, list_archive
from boxwright.sources.locations import describe_entry, describe_version
from boxwright.sources.manifests import is_manifest, list_manifest
from boxwright.sources.remote import is_address, local_path, open_storage
from boxwright.sources.source_image import SourceImage
from boxwright_runtime.image_file import SUFFIXES, describe_error
from boxwright_runtime.image_folder import FolderListing, walk_images
from boxwright_runtime.printable_names import printable

Note = Callable[[str], None]
"""Takes a line that the user should know."""


def list_source(text: str, note: Note) -> Iterator[SourceImage]:
    """List the images that a text means, in order, one at a time.

    Args:
        text: path or address of an image, of a folder with images in it and below it, of an archive (.tar, .zip) or a
            list (.txt, .jsonl, .parquet); or a glob of such files.
        note: takes a line that counts files that are no images, where there are any.

    Raises:
        FileNotFoundError: nothing there, or nothing matches.
        ValueError: a folder, an archive or a list without images, or a damaged one.
    """
    if is_address(text):
        path = local_path(text)
        return _list_remote(text, note) if path is None else list_source(path, note)
    if os.path.isdir(text):
        return _list_folder(text, note)
    if os.path.exists(text):
        return _list_file(text, note)
    return _list_matches(text, note)


def _list_folder(folder: str, note: Note) -> Iterator[SourceImage]:
    others, count = Counter[str](), 0
    root = os.path.join(folder, "")
    for path in walk_images(folder, others):
        count += 1
        yield SourceImage(path.removeprefix(root).replace(os.sep, "/"), path)
    _finish(folder, count, others, note)


def _list_file(path: str, note: Note, *, is_match: bool = False) -> Iterator[SourceImage]:
    """List a file; texts that a glob matches are labels or notes beside images, and no lists."""
    if path.lower().endswith(ARCHIVES + COMPRESSED):
        return list_archive(path, note)
    if is_manifest(path) and not (is_match and path.lower().endswith(".txt")):
        return list_manifest(path)
    return iter([SourceImage(os.path.basename(path), path)])


def _list_matches(pattern: str, note: Note) -> Iterator[SourceImage]:
    matches = sorted(match for match in glob.iglob(pattern, recursive=True) if not os.path.isdir(match))
    if not matches:
        raise FileNotFoundError(f"{printable(pattern)}: no such image or folder")
    for match in matches:
        yield from _list_file(match, note, is_match=True)


def _list_remote(address: str, note: Note) -> Iterator[SourceImage]:
    storage, path = open_storage(address)
    try:
        entries = _find(storage, path)
    except Exception as error:  # a storage service, or the network, may raise errors of any kind
        raise ValueError(f"{printable(address)} cannot be listed: {describe_error(error)}") from error
    if entries is None:
        raise FileNotFoundError(f"{printable(address)}: no such image or folder")
    if isinstance(entries, str):
        yield from _list_remote_file(storage, entries, {}, note)
        return
    is_folder = not glob.has_magic(path)
    others, count, root = Counter[str](), 0, path.rstrip("/") + "/"
    for name, entry in sorted(entries.items()):
        inside = name.removeprefix(root)
        suffix = os.path.splitext(name)[1].lower()
        if entry.get("type") == "directory" or (is_folder and any(part[:1] == "." for part in inside.split("/"))):
            continue
        if not is_folder:
            yield from _list_remote_file(storage, name, entry, note)
        elif suffix in SUFFIXES:
            yield SourceImage(inside, storage.unstrip_protocol(name), version=describe_entry(entry))
        else:
            others[suffix] += 1
            continue
        count += 1
    _finish(address, count, others, note)


def _find(storage: Any, path: str) -> dict[str, Any] | str | None:
    """Find files by their paths; the path itself where it is that of a file; None where there is nothing."""
    if glob.has_magic(path):
        matches: dict[str, Any] = storage.glob(path, detail=True)
        return matches or None
    if storage.isfile(path):
        return path
    if not storage.isdir(path):
        return None
    files: dict[str, Any] = storage.find(path, detail=True)
    return files


def _list_remote_file(storage: Any, path: str, entry: Any, note: Note) -> Iterator[SourceImage]:
    """List a file; ``entry`` is that of a match, or empty."""
    address = str(storage.unstrip_protocol(path))
    version = describe_entry(entry) if entry else describe_version(address)
    for one in _list_file(address, note, is_match=bool(entry)):
        yield one._replace(version=version) if one.location == address else one


def _finish(folder: str, count: int, others: Counter[str], note: Note) -> None:
    left_out = FolderListing([], others).describe_others()
    if not count:
        kinds = ", ".join(sorted(SUFFIXES))
        raise ValueError(
            f"{printable(folder)}: no images in this folder ({kinds})" + (f"; {left_out}" if left_out else "")
        )
    if left_out:
        note(f"{folder}: {left_out}")
