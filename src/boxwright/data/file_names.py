"""Files of listed images, found in their folder where names are written in another form."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from boxwright.data.annotations import Annotations
from boxwright.data.file_name_forms import (
    FILE_NAME_CASE,
    FILE_NAME_LAST_PARTS,
    FILE_NAME_PREFIX,
    FILE_NAME_SUFFIX,
    FILE_NAME_URL,
    NAME_FORMS,
    Form,
    common_parts,
    has_no_suffix,
    lower_form,
    path_inside,
    path_parts,
    stem_form,
    variants,
    without_prefix,
)
from boxwright.data.findings import Finding, FindingKind
from boxwright_runtime.printable_names import printable

FILE_LISTED_TWICE = FindingKind(
    "file_listed_twice",
    "warning",
    "image files listed more than once",
    "each counts as an image of its own; --fix merges them",
)

NUM_TRIED = 20
"""Of the first images, by which a folder is chosen."""

_NOT_THERE = "not in the folder"


class ResolvedNames(NamedTuple):
    """Files of listed images.

    Args:
        names: path of each image inside the folder, with forward slashes; its listed name where there is no file.
        missing: index of each name without a file, with the reason.
        findings: names that were not exactly those of their files.
    """

    names: tuple[str, ...]
    missing: dict[int, str]
    findings: tuple[Finding, ...]


def resolve_names(folder: Path, names: Sequence[str]) -> ResolvedNames:
    """Find the files of listed images in one pass over their folders.

    A name that is not exactly that of a file is resolved where one file fits and no other: backslashes, Unicode forms,
    percent-encoding, addresses, the folder's own name in front, upper and lower case, a suffix of the same kind. Names
    of another folder (absolute paths of another machine, ``../upload/1/a.jpg``) are found by their last parts, where
    no name of their folder is found otherwise. Where two files fit, the image is missing.

    Args:
        folder: where the images are.
        names: as listed, with or without folders.
    """
    opened, parents = _not_exact(folder, names)
    if not opened:
        return ResolvedNames(tuple(names), {}, tuple(_listed_twice(names)))
    matches = _match_names({names[index]: None for index in opened}, _Files(folder), parents)
    _refuse_shared_files(matches, names)
    resolved, missing, findings = list(names), {}, []
    for index in opened:
        match = matches[names[index]]
        if match.path is None:
            missing[index] = match.reason
        else:
            resolved[index] = match.path
            if match.kind is not None:
                findings.append(Finding(match.kind, names[index], f"file {match.path}"))
    twice = _listed_twice([name for index, name in enumerate(resolved) if index not in missing])
    return ResolvedNames(tuple(resolved), missing, (*findings, *twice))


def likeliest_folder(folders: Sequence[Path], names: Sequence[str]) -> Path:
    """Return the first of the folders that have most of the first images.

    Args:
        folders: the likeliest first.
        names: as listed.
    """
    some = list(names[:NUM_TRIED])
    existing = [folder for folder in folders if folder.is_dir()] or list(folders)
    exact = exact_folder(existing, names)
    return min(existing, key=lambda folder: len(resolve_names(folder, some).missing)) if exact is None else exact


def exact_folder(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Return the first of the folders that have most of the first images by exactly their names; None without any."""
    some = names[:NUM_TRIED]
    counts = [sum(_exists(folder, name) for name in some) for folder in folders]
    return folders[counts.index(max(counts))] if any(counts) else None


def _exists(folder: Path, name: str) -> bool:
    try:
        return path_inside(name) is not None and os.path.lexists(folder / name)
    except ValueError:  # NUL or half a letter in the name
        return False


def locate_images(table: Annotations) -> tuple[Path, Annotations]:
    """Choose the folder of the images, and name each image as its file in it is named.

    Args:
        table: returned by a reader; not changed.

    Returns:
        The folder, and the table with the names of files, and with findings about the differences. Names without a
        file are as they were.

    Raises:
        ValueError: a name leaves the folder, or may be that of several files.
    """
    in_files = [index for index, image in enumerate(table.images) if image.source is None]
    names = [table.images[index].file_name for index in in_files]
    folder = likeliest_folder(table.image_folders, names)
    if not folder.is_dir():
        return folder, table
    resolved = resolve_names(folder, names)
    unclear = [f"{printable(names[at])} ({why})" for at, why in resolved.missing.items() if why != _NOT_THERE]
    if unclear:
        named = ", ".join(unclear[:3]) + (", ..." if len(unclear) > 3 else "")
        raise ValueError(
            f"{table.path}: the files of {len(unclear)} of {len(names)} images in {folder} are not clear: {named}; "
            "correct their names, or restore the files"
        )
    if not resolved.findings and list(resolved.names) == names:
        return folder, table
    images = list(table.images)
    for index, name in zip(in_files, resolved.names, strict=True):
        images[index] = images[index]._replace(file_name=name)
    # Of a table that was located before, files that are listed twice have been named.
    new = dict.fromkeys(resolved.findings).keys() - set(table.findings)
    findings = (*table.findings, *(one for one in resolved.findings if one in new))
    return folder, replace(table, images=tuple(images), findings=findings)


def _not_exact(folder: Path, names: Sequence[str]) -> tuple[list[int], set[str]]:
    """Return the indices of the names that are not exactly those of files, and the folders of those that are."""
    listings: dict[str, frozenset[str]] = {}
    opened, parents = [], set()
    for index, name in enumerate(names):
        parent, _, last = name.rpartition("/")
        if ".." in name or "//" in name or "/./" in name or name.startswith(("/", "./")):
            opened.append(index)
            continue
        if parent not in listings:
            listings[parent] = frozenset(_list_files(folder / parent))
        if last in listings[parent]:
            parents.add(parent)
        else:
            opened.append(index)
    return opened, parents


class _Match(NamedTuple):
    path: str | None
    kind: FindingKind | None = None
    reason: str = ""


class _Files:
    """All files below a folder, by the forms of their paths and of their last parts."""

    def __init__(self, folder: Path) -> None:
        self.folder_names = {lower_form(part) for part in folder.absolute().parts[-4:]}
        self._folder = folder
        self._tables: dict[tuple[Form, bool], dict[str, list[str]]] = {}

    @cached_property
    def paths(self) -> list[str]:
        return sorted(_walk(self._folder))

    def with_path(self, form: Form, path: str) -> list[str]:
        return self._table(form, last=False).get(form(path), [])

    def with_last_parts(self, form: Form, path: str) -> list[str]:
        """Return the files that have most of the last parts of a path, at least the last."""
        same_name = self._table(form, last=True).get(form(path.rpartition("/")[2]), [])
        common = [common_parts(form(one), form(path)) for one in same_name]
        return [one for one, count in zip(same_name, common, strict=True) if count == max(common)]

    def _table(self, form: Form, *, last: bool) -> dict[str, list[str]]:
        table = self._tables.get((form, last))
        if table is None:
            table = self._tables[form, last] = {}
            for path in self.paths:
                table.setdefault(form(path.rpartition("/")[2] if last else path), []).append(path)
        return table


def _match_names(names: Iterable[str], files: _Files, parents: set[str]) -> dict[str, _Match]:
    """Match names with files: first by their whole paths, then what is left by the last parts."""
    matches = {name: _match_inside(name, files) for name in names}
    parents = parents | {_parent(name) for name, match in matches.items() if match.path is not None}
    for name, match in matches.items():
        if match.path is None and not match.reason:
            matches[name] = _match_outside(name, files, alone=_parent(name) not in parents)
    return matches


def _match_inside(name: str, files: _Files) -> _Match:
    for kind_of_variant, variant in variants(name):
        path = path_inside(variant)
        if path is None:
            continue
        rests = [(kind_of_variant, path)]
        rests += [(kind_of_variant or FILE_NAME_PREFIX, rest) for rest in without_prefix(path, files.folder_names)]
        for kind, rest in rests:
            match = _first_match(files.with_path, rest)
            if match is not None:
                return match._replace(kind=kind if kind is FILE_NAME_URL else match.kind or kind)
    return _Match(None)


def _match_outside(name: str, files: _Files, *, alone: bool) -> _Match:
    inside = path_inside(name.replace("\\", "/")) or not path_parts(name)
    reason = _NOT_THERE if inside else "leaves the folder, no file has its name"
    for kind, variant in reversed([*variants(name)]):
        path = "/".join(path_parts(variant.rpartition("../")[2]))
        match = _first_match(files.with_last_parts, path) if path else None
        if match is not None and match.path is not None:
            if not alone:
                return _Match(None, reason=f"{reason}, {printable(match.path)} has the same name")
            return match._replace(kind=FILE_NAME_URL if kind is FILE_NAME_URL else FILE_NAME_LAST_PARTS)
        if match is not None:
            return match
    return _Match(None, reason=reason)


def _first_match(lookup: Callable[[Form, str], list[str]], path: str) -> _Match | None:
    for kind, form in NAME_FORMS:
        paths = lookup(form, path) if form is not stem_form or has_no_suffix(path) else []
        if len(paths) == 1:
            return _Match(paths[0], kind)
        if paths:
            return _Match(None, reason=f"may be {printable(paths[0])} or {printable(paths[1])}")
    return None


def _refuse_shared_files(matches: dict[str, _Match], names: Sequence[str]) -> None:
    """Take back matches by case, suffix or last parts with files that are listed by other names as well."""
    loose = {FILE_NAME_CASE, FILE_NAME_SUFFIX, FILE_NAME_LAST_PARTS, FILE_NAME_URL}
    listed: dict[str, set[str]] = {match.path: set() for match in matches.values() if match.path is not None}
    for name in names:
        path = matches[name].path if name in matches else name
        if path in listed:
            listed[path].add(name)
    for name, match in matches.items():
        if match.path is not None and match.kind in loose and len(listed[match.path]) > 1:
            other = min(listed[match.path] - {name})
            reason = f"its file {printable(match.path)} is that of {printable(other)}"
            matches[name] = _Match(None, reason=reason)


def _parent(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[0]


def _listed_twice(names: Sequence[str]) -> Iterator[Finding]:
    if len(set(names)) < len(names):
        for name, times in Counter(names).items():
            if times > 1:
                yield Finding(FILE_LISTED_TWICE, name, f"{times} times")


def _walk(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below a folder; a folder that is linked into itself is read once."""
    opened, seen = [""], set()
    while opened:
        inside = opened.pop()
        real = os.path.realpath(folder / inside)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(folder / inside):
            path = f"{inside}{entry.name}"
            if _is_folder(entry):
                opened.append(f"{path}/")
            else:
                yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _list_files(folder: Path) -> Iterator[str]:
    return (entry.name for entry in _entries(folder) if not entry.is_dir(follow_symlinks=False))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (OSError, ValueError):  # no such folder, a name that is too long, NUL or half a letter in it
        return []
