"""Data sets, written in another format."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import boxwright.data.writers as _writers
from boxwright.data.findings import Finding
from boxwright.data.records import DetectionData
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, DataFiles, all_splits, read_split

_FOLDER = Path(_writers.__file__).parent


@runtime_checkable
class DataWriter(Protocol):
    """Contract of a file in ``data/writers/``: one annotation format, as a function of a module."""

    def write(self, splits: Mapping[str, DetectionData], folder: Path, *, link: bool) -> list[Finding]:
        """Write splits whole or not at all; return what the format cannot hold."""


@dataclass(frozen=True)
class ConvertedData:
    """A data set that was written.

    Args:
        folder: where it is.
        counts: number of images and of objects of each split that was read.
        findings: what was repaired or left out while it was read.
        written: what the format cannot hold, and images that got another name.
    """

    folder: Path
    counts: Mapping[str, tuple[int, int]]
    findings: tuple[Finding, ...]
    written: tuple[Finding, ...]


def list_writers() -> list[str]:
    """Return the names of all formats that can be written, in alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_"))


def writer_summary(name: str) -> str:
    """Return the first line of a format's docstring, read without importing it."""
    source = (_FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def find_writer(name: str) -> DataWriter:
    """Return the writer of a format.

    Raises:
        ValueError: there is no such format; lists them all.
    """
    if name not in list_writers():
        near = difflib.get_close_matches(name.lower(), list_writers(), n=1, cutoff=0.5)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"data is not written as {name!r}; {suggestion}formats: {', '.join(list_writers())}")
    return cast(DataWriter, import_module(f"boxwright.data.writers.{name}"))


def convert_data(
    data: Data,
    out: str | Path,
    *,
    to: str,
    copy: bool = False,
    observer: Observer | None = None,
) -> ConvertedData:
    """Write a data set in another format, all splits of it, whole or not at all.

    Args:
        data: a folder, ``DataFiles``, an ``ImageDataset``, or one for each split by its name.
        out: a folder that does not exist or is empty, outside the data set.
        to: ``coco``, ``voc`` or ``yolo``.
        copy: copy the images; else they are hard links to the same bytes where the file system allows it.
        observer: hears notes and progress; notes become warnings where None.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the data is faulty, there is no such format, or ``out`` is not empty.
    """
    observer = observer or Observer()
    writer, folder = find_writer(to), Path(out)
    source = data.folder if isinstance(data, DataFiles) else data
    check_data_folder(folder, source if isinstance(source, str | Path) else None)
    names = all_splits(data)
    if not names:
        # Says which formats there are, and what the folder looks like.
        names = ["train"]
    splits = {name: read_split(data, name, observer=observer) for name in names}
    observer.announce(f"writing {folder} as {to}")
    written = writer.write(splits, folder, link=not copy)
    counts = {
        name: (len(split.records), sum(len(record.labels) for record in split.records))
        for name, split in splits.items()
    }
    findings = tuple(finding for split in splits.values() for finding in split.findings)
    return ConvertedData(folder, counts, findings, tuple(written))


def check_data_folder(folder: Path, source: str | Path | None) -> None:
    """Raise ``ValueError`` where a data set cannot be written to a folder, or is to be written into ``source``."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty and is not overwritten" if folder.is_dir() else "is a file"
        raise ValueError(f"{folder} {what}: give a folder that does not exist")
    if source is not None and Path(source).resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"{folder} is inside the data set {source}, which is never written to; give another folder")
