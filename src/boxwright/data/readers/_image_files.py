"""Image files of a folder, listed once, and found by the names that annotation files give them."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from boxwright.data.image_check import SUFFIXES


class ImageFiles:
    """The image files of one folder by name, by the end of their path and by stem.

    Args:
        folder: to list; files and folders whose names begin with a dot are left out.
        deep: list the folders in it too.
    """

    def __init__(self, folder: Path, *, deep: bool = True) -> None:
        self.folder = folder
        self.names = sorted(name for name in walk_files(folder, deep=deep) if is_image_name(name))
        self._exact = {_plain(name): name for name in self.names}
        self._by_base: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for plain, name in self._exact.items():
            stem = os.path.splitext(plain)[0]
            self._by_base.setdefault(plain.rpartition("/")[2], []).append(name)
            self._by_stem.setdefault(stem, []).append(name)
            if "/" in stem:
                self._by_stem.setdefault(stem.rpartition("/")[2], []).append(name)

    def find(self, name: str) -> str | None:
        """Return the file that a name means: itself, the only one of its base name, or the only one of its stem."""
        for form in dict.fromkeys((posix(name), posix(unquote(name)))):
            plain = _plain(form)
            exact = self._exact.get(plain) or _only(self._by_base.get(PurePosixPath(plain).name))
            if exact or (exact := self.find_stem(plain)):
                return exact
        return None

    def find_stem(self, stem: str, suffix: str = "") -> str | None:
        """Return the file of this stem, with or without its folder; of several, the one with the suffix, if any."""
        named = self._by_stem.get(_plain(stem), [])
        preferred = [name for name in named if suffix and name.lower().endswith(suffix.lower())]
        return _only(preferred) or _only(named) or self._exact.get(_plain(stem))


def walk_files(folder: Path, *, deep: bool = True) -> Iterator[str]:
    """List the files of a folder with forward slashes; leave out names that begin with a dot.

    Links to folders outside are followed, each target once; those to folders inside name files that are listed anyway.
    """
    linked = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        inner = (name for name in sorted(folders) if not name.startswith(".")) if deep else ()
        folders[:] = [name for name in inner if _is_new_folder(os.path.join(parent, name), linked)]
        inside = os.path.relpath(parent, folder).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        yield from (prefix + name for name in files if not name.startswith("."))


def _is_new_folder(path: str, linked: set[str]) -> bool:
    """Tell whether a folder is none of the walked ones, nor around one; remember the targets of links."""
    if not os.path.islink(path):
        return True
    target = os.path.join(os.path.realpath(path), "")
    known = [os.path.join(one, "") for one in linked]
    if any(one.startswith(target) or target.startswith(one) for one in known):
        return False
    linked.add(target.rstrip(os.sep))
    return True


def check_regular(path: Path) -> None:
    """Raise ``ValueError`` where a path is no file, but a folder or a pipe, which would be read for ever.

    Raises:
        OSError: there is nothing, or it cannot be looked up.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise ValueError(f"{path} is {kind}, not a file; remove it, or put the file in its place")


def is_image_name(name: str) -> bool:
    """Tell whether a file has a suffix of images."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def has_file(folder: Path, suffix: str) -> bool:
    """Tell whether a folder has a file of a suffix directly in it."""
    return next(files_of_suffix(folder, suffix), None) is not None


def files_of_suffix(folder: Path, suffix: str) -> Iterator[Path]:
    """List files of a suffix directly in a folder, in no order; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(suffix) and not entry.name.startswith(".") and _is(entry.is_file):
                    yield folder / entry.name
    except OSError:
        return


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, in alphabetical order; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / one.name for one in entries if _is(one.is_dir) and not one.name.startswith("."))
    except OSError:
        return []


def _is(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:  # a link to itself
        return False


def posix(name: str) -> str:
    """Return a path as exported on any system with forward slashes, without a leading ``./``."""
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name


def likeliest_images(folders: Iterable[Path], stems: Sequence[str]) -> ImageFiles:
    """List the first of the folders that has most of the first images.

    Args:
        folders: that may have them, the likeliest first; at least one.
        stems: names of images without suffix.
    """
    best, most = None, -1
    for folder in dict.fromkeys(folders):
        if best is not None and not folder.is_dir():
            continue
        files = ImageFiles(folder)
        count = sum(files.find_stem(stem) is not None for stem in stems[:50])
        if count > most:
            best, most = files, count
        if count == len(stems[:50]) > 0:
            break
    assert best is not None
    return best


def common_folder(paths: Sequence[Path | str]) -> tuple[Path, list[str]]:
    """Return the folder that all paths are in, and their names inside it."""
    split = [os.path.split(os.fspath(path)) for path in paths]
    absolute = {parent: os.path.abspath(parent) for parent in dict.fromkeys(parent for parent, _ in split)}
    folder = os.path.commonpath(list(absolute.values()))
    inside = {parent: os.path.relpath(path, folder).replace(os.sep, "/") for parent, path in absolute.items()}
    prefix = {parent: "" if path == "." else f"{path}/" for parent, path in inside.items()}
    return Path(folder), [prefix[parent] + name for parent, name in split]


def subtract_files(files: Iterable[Path | str], others: Iterable[Path | str]) -> list[Path]:
    """Return the files that are not among others, whatever way their folders are written."""
    folders: dict[str, str] = {}

    def resolve(path: Path | str) -> tuple[str, str]:
        parent, name = os.path.split(os.fspath(path))
        if parent not in folders:
            folders[parent] = os.path.realpath(parent)
        return folders[parent], name

    known = {resolve(path) for path in others}
    return [Path(path) for path in files if resolve(path) not in known]


def compose_name(name: str) -> str:
    """Return a name in Unicode's form NFC, without space around it: the name of a class."""
    return unicodedata.normalize("NFC", name.strip())


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _only(names: Sequence[str] | None) -> str | None:
    return names[0] if names and len(names) == 1 else None
