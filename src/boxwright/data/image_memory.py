"""Facts of images, remembered outside the data set, so that no image is decoded twice.

A file is known by its path, size and times. Several processes may read and write at once. What cannot be read or
written is left out, with one warning: images are then decoded again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from boxwright.data.cache_folder import cache_folder
from boxwright.data.image_inspection import ImageFacts

_FILE = "images-2.sqlite"
"""The number changes with the columns, and with the meaning of what is in them."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS folders (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS images (
    folder INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
    height INTEGER NOT NULL, width INTEGER NOT NULL, digest BLOB, dhash BLOB, channels INTEGER NOT NULL,
    depth INTEGER NOT NULL, orientation INTEGER NOT NULL, findings TEXT NOT NULL, PRIMARY KEY (folder, name)
) WITHOUT ROWID;
"""
_COLUMNS = "size, mtime, ctime, height, width, digest, dhash, channels, depth, orientation, findings"
_FEW = 500
_WAIT_SECONDS = 10
_SETTLED_NS = 2_000_000_000
"""A file that was written this shortly before may be written again without another time: it is not remembered."""


class FileStamp(NamedTuple):
    """A file's size and times, by which a change of it is noticed.

    Args:
        size: in bytes.
        mtime: of the last change of its content, in nanoseconds.
        ctime: of the last change of anything about it, in nanoseconds.
    """

    size: int
    mtime: int
    ctime: int


def stamp_files(folder: Path, names: Iterable[str]) -> list[FileStamp | None]:
    """Return the size and times of each file in a folder; None where it cannot be looked at."""
    prefix = os.path.join(folder, "")
    return [_stamp(prefix + name) for name in names]


def recall_facts(folder: Path, names: Sequence[str], stamps: Sequence[FileStamp | None]) -> dict[str, ImageFacts]:
    """Return what is remembered of images whose files have not changed since.

    Args:
        folder: of the images.
        names: paths of the images inside ``folder``.
        stamps: of the files as they are now.
    """
    try:
        file = cache_folder() / _FILE
        if not file.exists():
            return {}
        with closing(sqlite3.connect(file, timeout=_WAIT_SECONDS)) as connection:
            rows = _select(connection, _absolute(folder), names)
            known = {name: (FileStamp(*values[:3]), _facts(values[3:])) for name, *values in rows}
    except (OSError, RuntimeError, ValueError, TypeError, sqlite3.Error) as error:
        _warn(error)
        return {}
    entries = ((name, stamp, known.get(name)) for name, stamp in zip(names, stamps, strict=True))
    return {name: entry[1] for name, stamp, entry in entries if entry is not None and entry[0] == stamp}


def remember_facts(folder: Path, facts: Mapping[str, tuple[FileStamp, ImageFacts]]) -> None:
    """Remember facts of images, but for files that have changed since their stamp, or only just before.

    Args:
        folder: of the images.
        facts: by the path inside ``folder``; the stamp is from before the file was read.
    """
    now = time.time_ns()
    stamps = stamp_files(folder, facts)
    settled = [
        (name, stamp, values)
        for (name, (stamp, values)), current in zip(facts.items(), stamps, strict=True)
        if stamp == current and abs(now - stamp.mtime) > _SETTLED_NS
    ]
    if not settled:
        return
    try:
        file = cache_folder() / _FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=_WAIT_SECONDS)) as connection:
            connection.executescript(_SCHEMA)
            with connection:  # one transaction
                _insert(connection, _absolute(folder), settled)
    except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        _warn(error)


def _stamp(path: str) -> FileStamp | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileStamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _absolute(folder: Path) -> str:
    return os.path.abspath(folder)


def _select(connection: sqlite3.Connection, folder: str, names: Sequence[str]) -> list[Any]:
    # Another process may have made the file just now, and not its tables yet.
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('folders', 'images')").fetchone()
    if tables != (2,):
        return []
    row = connection.execute("SELECT id FROM folders WHERE path = ?", (folder,)).fetchone()
    if row is None:
        return []
    if len(names) > _FEW:
        return connection.execute(f"SELECT name, {_COLUMNS} FROM images WHERE folder = ?", row).fetchall()
    query = f"SELECT name, {_COLUMNS} FROM images WHERE folder = ? AND name = ?"
    single = (connection.execute(query, (*row, name)).fetchone() for name in names if name.isprintable())
    return [one for one in single if one is not None]


def _insert(connection: sqlite3.Connection, folder: str, rows: Iterable[tuple[str, FileStamp, ImageFacts]]) -> None:
    connection.execute("INSERT OR IGNORE INTO folders (path) VALUES (?)", (folder,))
    (number,) = connection.execute("SELECT id FROM folders WHERE path = ?", (folder,)).fetchone()
    connection.executemany(
        f"INSERT OR REPLACE INTO images (folder, name, {_COLUMNS}) VALUES ({', '.join('?' * 13)})",
        (
            (number, name, *stamp, *facts[:-1], json.dumps(facts.findings) if facts.findings else "")
            for name, stamp, facts in rows
            if name.isprintable()
        ),
    )


def _facts(values: Sequence[Any]) -> ImageFacts:
    findings = tuple((kind, detail) for kind, detail in json.loads(str(values[-1]))) if values[-1] else ()
    height, width, digest, dhash, channels, depth, orientation, _ = values
    return ImageFacts(height, width, digest, dhash, channels, depth, orientation, findings)


def _warn(error: Exception) -> None:
    warnings.warn(
        f"the memory of checked images is left out, and images are decoded at every start: {error}; delete "
        f"{_FILE} in $BOXWRIGHT_CACHE (else ~/.cache/boxwright) if it is damaged, or set BOXWRIGHT_CACHE to a folder "
        "that can be written",
        stacklevel=2,
    )
