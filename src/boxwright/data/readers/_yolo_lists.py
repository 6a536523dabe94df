"""Lists of images, as ``train.txt`` of YOLO data sets."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from boxwright.data.file_names import FILE_LISTED_TWICE, resolve_names
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.readers._image_files import check_regular, is_image_name, posix, walk_files
from boxwright.data.readers._yolo_paths import is_absolute

OTHER_PATH = FindingKind("other_path", "note", "paths that lead nowhere as they are written, found beside data.yaml")

IMAGE_FOLDERS = ("images", "Images", "JPEGImages")

_TRIES = 8
"""Names of a folder that are looked up until one of them is there."""


def list_images(source: Path, folder: Path, findings: list[Finding]) -> list[str]:
    """Return the paths of the images of a folder or list, by the names of their files.

    Args:
        source: the folder or list.
        folder: the data set.
        findings: takes the differences between names in a list and those of files.

    Raises:
        ValueError: the list is no text, or empty.
    """
    if source.is_dir():
        return [os.path.join(source, name) for name in sorted(walk_files(source)) if is_image_name(name)]
    parents: dict[str, Path] = {}
    tries: dict[str, int] = {}
    paths = []
    lines = _read_lines(source)
    for line in lines:
        path = PurePosixPath(posix(line))
        parent = str(path.parent)
        if parent not in parents and tries.setdefault(parent, 0) < _TRIES:
            tries[parent] += 1
            existing = _listed_parent(path, source.parent, folder)
            if existing is not None:
                parents[parent] = existing
                if is_absolute(line) and str(existing) != parent:
                    findings.append(Finding(OTHER_PATH, parent, f"{existing}"))
        paths.append(parents.get(parent, source.parent / path.parent) / path.name)
    return [str(path) for path in _existing(paths, lines, folder, findings)]


def _read_lines(source: Path) -> list[str]:
    try:
        check_regular(source)
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} is no list of images: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _listed_parent(path: PurePosixPath, beside: Path, folder: Path) -> Path | None:
    """Return the folder of a listed image: as written, beside the list, in the data folder, or by the path's end."""
    parts = path.parent.parts
    tails = [folder.joinpath(*parts[start:]) for start in range(1 if path.is_absolute() else 0, len(parts) + 1)]
    candidates = [beside / path.parent, folder / path.parent, *tails, *(folder / name for name in IMAGE_FOLDERS)]
    return next((one for one in candidates if os.path.isfile(one / path.name)), None)


def _existing(paths: list[Path], lines: list[str], folder: Path, findings: list[Finding]) -> list[Path]:
    """Replace the paths without a file by those of the files that their names mean in another form."""
    listings: dict[Path, frozenset[str]] = {}
    for parent in {path.parent for path in paths}:
        listings[parent] = frozenset(walk_files(parent, deep=False))
    names = {}
    for index, path in enumerate(paths):
        if path.name not in listings[path.parent]:
            names[index] = posix(lines[index])
        elif path.is_relative_to(folder):  # its file is not that of another name
            names[index] = path.relative_to(folder).as_posix()
    missing = [index for index, path in enumerate(paths) if path.name not in listings[path.parent]]
    if not missing:
        return paths
    positions = {index: position for position, index in enumerate(names)}
    resolved = resolve_names(folder, list(names.values()))
    for index in missing:
        if positions[index] not in resolved.missing:
            paths[index] = folder / resolved.names[positions[index]]
    findings += [one for one in resolved.findings if one.kind is not FILE_LISTED_TWICE]
    return paths
