"""The one function that opens a data set, whatever its format is."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from boxwright.data.annotations import Annotations
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.folder_description import count_kinds, guess_format
from boxwright.data.image_check import ProgressCallback, first_names
from boxwright.data.image_dataset import ImageDataset
from boxwright.data.invalid_entries import refuse_invalid_entries
from boxwright.data.join import join_images
from boxwright.data.readable_images import drop_unreadable
from boxwright.data.records import DetectionData
from boxwright.data.split_names import canonical_split
from boxwright.structures import Category, Task
from boxwright_runtime.printable_names import one_line_errors

DataSource = str | Path | ImageDataset | Mapping[str, ImageDataset]
"""A folder, own samples, or own samples by the name of the split."""

UNREAD_ANNOTATION_FILE = FindingKind(
    "unread_annotation_file",
    "warning",
    "annotation files belong to no split, and are not read",
    "name them as splits, or move them away",
)

_READERS = Path(__file__).with_name("readers")


@runtime_checkable
class Reader(Protocol):
    """Contract of a file in ``readers/``: one annotation format, as functions of a module.

    A format with annotation files that may lie anywhere also has ``read_file(annotations: Path) -> Annotations``,
    and ``FILE_SUFFIXES`` where only files of some suffixes can be of it.
    """

    TASK: Task

    def recognizes(self, folder: Path) -> bool:
        """Return True where a folder holds data in this format; read names of files only, and never raise."""

    def splits(self, folder: Path) -> list[str]:
        """Return the names of the splits of a folder; ``val`` for ``valid`` and ``validation``."""

    def read(self, folder: Path, split: str) -> Annotations:
        """Read one split; raise ``ValueError``, in one line, for a fault or a split that is not there."""

    def unread_files(self, folder: Path) -> list[Path]:
        """Return the annotation files of this format that belong to no split, sorted; [] where there are none.

        Files that ``read`` names with their split are left out.
        """


def list_readers() -> list[str]:
    """Return the names of all formats, in alphabetical order; imports none of them."""
    return sorted(path.stem for path in _READERS.glob("*.py") if not path.stem.startswith("_"))


def reader_summary(name: str) -> str:
    """Return the first line of a format's docstring, read without importing it."""
    source = (_READERS / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def find_reader(name: str) -> Reader:
    """Return the reader of a format.

    Raises:
        ValueError: there is no such format; lists them all.
    """
    name = name.replace("-", "_")
    if name not in list_readers():
        near = difflib.get_close_matches(name, list_readers(), n=1, cutoff=0.5)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown data format {name!r}; {suggestion}formats: {', '.join(list_readers())}")
    return _import_reader(name)


@one_line_errors()
def open_data(
    data: DataSource | None,
    split: str = "train",
    *,
    task: Task = "detection",
    data_format: str | None = None,
    annotations: Path | str | None = None,
    images: Path | str | None = None,
    categories: Sequence[Category] | None = None,
    check_images: bool = True,
    with_images: bool = True,
    drop_unreadable_images: bool = False,
    drop_invalid_entries: bool = False,
    progress: ProgressCallback | None = None,
) -> DetectionData:
    """Read one split of a data set, check it, and join it with its images.

    Args:
        data: a folder, whose format is recognized by its files; own samples as an ``ImageDataset``, or one for each
            split by its name; None with an explicit annotation file.
        split: the part of the data set; ``valid`` and ``validation`` mean ``val``.
        task: of the model: detection needs objects with boxes, classification folders of classes or own samples.
        data_format: name of a file in ``data/readers/``, for a folder that is recognized as another format.
        annotations: the annotation file, in place of the folder's.
        images: the image folder, in place of the folder's; beside ``annotations`` where only those are named.
        categories: the classes of a model, see ``join_images``.
        check_images: decode every image; without it, only headers are read.
        with_images: False for annotations alone, whose images need not be there.
        drop_unreadable_images: go on without images that are missing or damaged, with a finding for each; else they
            are an error.
        drop_invalid_entries: go on without annotations and annotation files that cannot be read, with a finding for
            each; else they are an error.
        progress: called as ``progress(done, total)`` while the images are checked.

    Raises:
        FileNotFoundError: a folder or the annotation file does not exist.
        ValueError: no format is recognized, there is no such split, or the data is faulty.
    """
    notes: list[str] = []
    if annotations is not None:
        table = _read_file(Path(annotations), task, data_format)
    elif data is None:
        raise ValueError("give a data folder, or an annotation file and an image folder")
    elif isinstance(data, str | Path):
        table, notes = _read_folder(Path(data), split, task, data_format)
    else:
        table = _own_data(data, split).annotations(task)
    if not drop_invalid_entries:
        refuse_invalid_entries(table)
    if images is not None:
        table = replace(table, image_folders=(Path(images),))
    if drop_unreadable_images:
        table, progress = drop_unreadable(table, progress), None
    joined = join_images(
        table, categories=categories, check_images=check_images, with_images=with_images, progress=progress
    )
    return replace(joined, notes=(*notes, *joined.notes))


@one_line_errors()
def list_splits(data: DataSource, *, task: Task = "detection", data_format: str | None = None) -> list[str]:
    """Return the names of the splits that a data set has: train, val and test first.

    Args:
        data: see ``open_data``; own samples without the name of a split have the split train.
        task: see ``open_data``.
        data_format: see ``open_data``.

    Returns:
        An empty list where no format of this task is recognized.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is not a folder, or it is empty.
    """
    if isinstance(data, ImageDataset):
        return ["train"]
    if not isinstance(data, str | Path):
        return list(data)
    folder = Path(data)
    _check_folder(folder)
    names = [data_format] if data_format else _recognized(folder, task)
    return find_reader(names[0]).splits(folder) if names else []


def _read_folder(folder: Path, split: str, task: Task, data_format: str | None) -> tuple[Annotations, list[str]]:
    _check_folder(folder)
    if data_format is not None:
        return _read_split(find_reader(data_format), folder, split), []
    names = _recognized(folder, task)
    if not names:
        raise ValueError(_unrecognized(folder, split, task))
    if len(names) == 1:
        return _read_split(_import_reader(names[0]), folder, split), []
    splits = {name: _import_reader(name).splits(folder) for name in names}
    chosen, *others = names
    having = [name for name in others if canonical_split(split.strip("/")) in splits[name]]
    if having and canonical_split(split.strip("/")) not in splits[chosen]:
        raise ValueError(
            f"no split {split!r} in {folder}, which is read as {chosen} with the splits {', '.join(splits[chosen])}; "
            f"it looks like {having[0]} with the splits {', '.join(splits[having[0]])} too, which "
            f"data_format={having[0]} chooses"
        )
    note = (
        f"{folder}: read as {chosen}; it looks like {' and like '.join(others)} too, which data_format={others[0]} "
        "chooses"
    )
    return _read_split(_import_reader(chosen), folder, split), [note]


def _read_split(reader: Reader, folder: Path, split: str) -> Annotations:
    """Read a split; with the first of a data set, name the annotation files that belong to no split."""
    table = reader.read(folder, split)
    if canonical_split(split.strip("/")) not in reader.splits(folder)[:1]:
        return table
    unread = [
        Finding(UNREAD_ANNOTATION_FILE, path.relative_to(folder).as_posix()) for path in reader.unread_files(folder)
    ]
    return replace(table, findings=(*table.findings, *unread)) if unread else table


def _read_file(annotations: Path, task: Task, data_format: str | None) -> Annotations:
    readers = [data_format] if data_format else [name for name in list_readers() if task == find_reader(name).TASK]
    functions = {name: getattr(find_reader(name), "read_file", None) for name in readers}
    with_file = {name: function for name, function in functions.items() if function is not None}
    suffix = annotations.suffix.lower()
    declared = {name: getattr(find_reader(name), "FILE_SUFFIXES", None) for name in with_file}
    of_suffix = [name for name, suffixes in declared.items() if suffixes is not None and suffix in suffixes]
    likely = of_suffix or [name for name, suffixes in declared.items() if suffixes is None] or list(with_file)
    with_file = {name: with_file[name] for name in likely}
    if not with_file:
        raise ValueError(
            f"{annotations}: {' and '.join(readers)} has no annotation files: give a data folder alone "
            f"({'; '.join(map(reader_summary, readers))})"
        )
    if len(with_file) > 1:
        names = ", ".join(with_file)
        raise ValueError(f"{annotations}: this file may be of several formats: choose with data_format: {names}")
    return cast(Annotations, next(iter(with_file.values()))(annotations))


def _own_data(data: ImageDataset | Mapping[str, ImageDataset], split: str) -> ImageDataset:
    if isinstance(data, ImageDataset):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(
            f"data must be a folder, an ImageDataset or one for each split, not {type(data).__name__}: "
            "give boxwright.ImageDataset(samples, class_names=[...])"
        )
    if split not in data:
        raise ValueError(f"no split {split!r} in this data; its splits are {', '.join(data) or 'none'}")
    return data[split]


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise FileNotFoundError(f"data folder {folder} does not exist")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the data folder, or this file and its images as explicit paths")
    if not any(folder.iterdir()):
        raise ValueError(f"data folder {folder} is empty")


def _recognized(folder: Path, task: Task | None) -> list[str]:
    """Return the formats that a folder has, first the one that is read: it has most of the splits."""
    readers = {name: _import_reader(name) for name in list_readers()}
    names = [name for name, reader in readers.items() if task in (None, reader.TASK) and reader.recognizes(folder)]
    return sorted(names, key=lambda name: -len(readers[name].splits(folder))) if len(names) > 1 else names


def _unrecognized(folder: Path, split: str, task: Task) -> str:
    readers = {name: _import_reader(name) for name in list_readers()}
    formats = "; ".join(reader_summary(name) for name, reader in readers.items() if task == reader.TASK)
    known = f"data for {task} is one of: {formats}"
    for name in _recognized(folder, None):
        if split in readers[name].splits(folder):
            return (
                f"{folder}: no annotations for {task}; it looks like {name}, which is for {readers[name].TASK}: "
                f"choose a model for {readers[name].TASK}, or another folder; {known}"
            )
    names = [path.name + "/" * path.is_dir() for path in sorted(folder.iterdir())]
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _recognized(path, task)]
    guess = (
        f"; its folder {inner[0].name}/ looks like {_recognized(inner[0], task)[0]}: give that"
        if inner
        else f"; {guess_format(folder)}".removesuffix("; ")
    )
    holds = f"{first_names(names, 5)} ({count_kinds(folder)})"
    return f"{folder}: no annotations of a known format; it holds {holds}{guess}; {known}"


@cache
def _import_reader(name: str) -> Reader:
    return cast(Reader, import_module(f"boxwright.data.readers.{name}"))
