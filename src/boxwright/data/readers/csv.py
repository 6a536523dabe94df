"""CSV: train.csv or train/_annotations.csv with filename, class, xmin, ymin, xmax and ymax in each row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxwright.data.annotations import Annotations
from boxwright.data.file_names import likeliest_folder, locate_images, resolve_names
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.readers._claimed_paths import find_rivals
from boxwright.data.readers._csv_columns import SEPARATORS, Columns, find_columns
from boxwright.data.readers._image_files import ImageFiles, compose_name, files_of_suffix, folders_in, posix
from boxwright.data.readers._rows import (
    IMAGE_WITHOUT_ANNOTATION_FILE,
    SWAPPED_CORNERS,
    Faults,
    ImageRows,
    number_of,
    numbered,
    order_corners,
)
from boxwright.data.split_names import canonical_split, sort_splits
from boxwright.structures import Task

TASK: Task = "detection"

FILE_SUFFIXES = (".csv", ".tsv")
"""Suffixes of annotation files that may lie anywhere."""

FRACTIONS_READ = FindingKind(
    "fractions_read", "note", "tables whose coordinates are all from 0 to 1, read as fractions of the image's sides"
)
ROW_WITHOUT_BOX = FindingKind(
    "row_without_box",
    "warning",
    "rows with a class and no coordinates, read as images without this object",
    "a row of an image without objects has no class",
)
REPEATED_HEADER = FindingKind("repeated_header", "note", "rows with the names of columns again, passed over")

_FOLDERS = ("", "annotations", "labels", "data", "csv")
_SPLIT = re.compile(
    r"(train|training|val|valid|validation|validate|test)[ ._-]*(labels|annotations|annots?|boxes|bboxes|data|set)?"
)
_WHOLE = re.compile(r"_*(annotations?|annots?|labels|boxes|bboxes|data|dataset)")
_OTHER_NAMES = {"training": "train"}


_MARKS = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True, "n": False, "y": True}
_MARKS |= {"f": False, "t": True, "": False, "nan": False, "none": False, "null": False, "-1": False}
"""Marks of crowd regions in lower case; -1 is that of OpenImages for what is not known."""


class _Split(NamedTuple):
    """The table of a split, and other tables that could be this split, which are not read."""

    table: Path
    others: tuple[Path, ...] = ()


class _Row(NamedTuple):
    """One row: the image, its (height, width), and its object, if it has one."""

    file: str
    size: tuple[int, int] | None
    name: str
    corners: Sequence[float] | None
    crowd: bool


def recognizes(folder: Path) -> bool:
    """Return True where a table with such columns has the name of a split, or stands alone."""
    return bool(_tables(folder))


def splits(folder: Path) -> list[str]:
    """Return the names of the splits: train, val and test first."""
    return sort_splits(_tables(folder))


def read(folder: Path, split: str) -> Annotations:
    """Read one split; the classes are those of all splits, in alphabetical order.

    A row without coordinates is an image without objects; one that cannot be read is a finding, and left out.

    Raises:
        ValueError: there is no such split, or no row can be read.
    """
    tables = _tables(folder)
    name = canonical_split(split.strip("/"))
    if name not in tables:
        there = f"its splits are {', '.join(sort_splits(tables))}" if tables else "it has no table of boxes"
        raise ValueError(f"no split {split!r} in {folder}: looked for {name}.csv and {name}/_annotations.csv; {there}")
    path = tables[name].table
    parents = dict.fromkeys([path.parent, folder])
    candidates = [
        *(
            parent / inner
            for inner in (f"images/{name}", f"{name}/images", name, "images", "imgs")
            for parent in parents
        ),
        *parents,
    ]
    table = _read(path, [one.table for one in tables.values()], candidates)
    return replace(table, findings=(*find_rivals(folder, split, *tables[name]), *table.findings))


def unread_files(folder: Path) -> list[Path]:
    """List the tables of boxes that belong to no split; of each, only the first row is read."""
    known = {path for split in _tables(folder).values() for path in (split.table, *split.others)}
    inner = [one for one in folders_in(folder) if one.name not in _FOLDERS]
    files = {path for one in (*(folder / name for name in _FOLDERS), *inner) for path in _csv_files(one)}
    return sorted(path for path in files - known if _columns_of(path) is not None)


def read_file(annotations: Path) -> Annotations:
    """Read a table that lies anywhere; the images are beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table of boxes, or no row can be read.
    """
    if not annotations.is_file():
        raise FileNotFoundError(f"annotation file {annotations} does not exist")
    return _read(annotations, [annotations], [annotations.parent / "images", annotations.parent])


def _read(path: Path, tables: Sequence[Path], image_folders: Sequence[Path]) -> Annotations:
    faults = Faults(path)
    findings: list[Finding] = []
    rows_of = {one: _rows(one, Faults(one), []) for one in tables if one != path}
    rows_of[path] = own = _rows(path, faults, findings)
    faults.check_rest(own)
    classes = sorted({row.name for rows in rows_of.values() for row in rows if row.corners is not None})
    if not own:
        raise ValueError(f"{path}: it has no row with an image")
    rows = ImageRows(numbered(classes))
    rows.findings += [*findings, *faults.findings]
    objects: dict[str, list[_Row]] = {}
    for row in own:
        objects.setdefault(posix(row.file), []).append(row)
    for image, of_image in objects.items():
        rows.add_image(image, next((row.size for row in of_image if row.size is not None), None))
        for row in of_image:
            if row.corners is not None:
                rows.add_object(rows.label_of[row.name], row.corners, crowd=row.crowd)
    folder = likeliest_folder(list(dict.fromkeys(image_folders)), list(objects))
    elsewhere = [posix(row.file) for table in tables if table != path for row in rows_of[table]]
    for image in _unnamed_images(rows.table(path, (folder,)), elsewhere):
        rows.find(IMAGE_WITHOUT_ANNOTATION_FILE, image)
    fractions = _are_fractions(own)
    if fractions:
        rows.find(FRACTIONS_READ, path.name)
    return rows.table(path, (folder,), has_fractions=fractions, has_category_ids=False)


def _unnamed_images(table: Annotations, elsewhere: Iterable[str]) -> Iterator[str]:
    """List the images of a folder that neither the table names nor another one, as the names are resolved later."""
    try:
        folder, located = locate_images(table)
    except ValueError:  # said again when the table is joined with its images
        return
    if folder.is_dir():
        named = {image.file_name for image in located.images}
        named |= {*resolve_names(folder, list(dict.fromkeys(elsewhere))).names}
        yield from (image for image in ImageFiles(folder).names if image not in named)


def _tables(folder: Path) -> dict[str, _Split]:
    """Find the tables of splits: those in folders of splits first, then whole names before those with affixes."""
    named: dict[str, list[Path]] = {}
    others: list[Path] = []
    for inner in sorted(folders_in(folder), key=lambda one: canonical_split(one.name) != one.name):
        if inner.name not in _FOLDERS:
            for path in _csv_files(inner):
                if _WHOLE.fullmatch(path.stem.lower()) and _columns_of(path) is not None:
                    named.setdefault(canonical_split(inner.name), []).append(path)
    for name in _FOLDERS:
        for path in _csv_files(folder / name):
            match = _SPLIT.fullmatch(path.stem.lower())
            if match is None:
                others.append(path)
            elif _columns_of(path) is not None:
                named.setdefault(_split(match[1]), []).append(path)
    if not named:
        whole = [path for path in others if _WHOLE.fullmatch(path.stem.lower()) and _columns_of(path) is not None]
        whole = whole or [path for path in others[:8] if _columns_of(path) is not None][:1]
        named = {"train": whole} if whole else {}
    return {split: _Split(first, tuple(rest)) for split, (first, *rest) in named.items()}


def _split(name: str) -> str:
    return canonical_split(_OTHER_NAMES.get(name, name))


def _csv_files(folder: Path) -> list[Path]:
    return sorted(path for suffix in (".csv", ".tsv") for path in files_of_suffix(folder, suffix))


def _columns_of(path: Path) -> tuple[Columns, str] | None:
    """Return the columns of a table and its separator from its first row; None where it has other ones."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = next((line for line in iter(lambda: file.readline(10_000), "") if line.strip()), "")
        for separator in sorted(SEPARATORS, key=line.count, reverse=True):
            columns = find_columns(next(csv.reader([line], delimiter=separator), []))
            if columns is not None:
                return columns, separator
    except (OSError, csv.Error):
        return None
    return None


def _rows(path: Path, faults: Faults, findings: list[Finding]) -> list[_Row]:
    kind = _columns_of(path)
    if kind is None:
        raise ValueError(
            f"{path} is no table of boxes: its first row must name filename, class, xmin, ymin, xmax and ymax"
        )
    columns, separator = kind
    rows: list[_Row] = []
    header: list[str] = []
    number = 0
    try:
        for number, cells in _cells(path, separator):
            if columns.has_header and not header:
                header = cells
            elif cells == header:
                findings.append(Finding(REPEATED_HEADER, path.name, f"line {number}"))
            elif any(cell.strip() for cell in cells):
                try:
                    rows.append(_row(cells, columns, separator, f"line {number}", path, findings))
                except ValueError as error:
                    rows += _name_fault(cells, columns, f"line {number}: {error}", faults)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read: {error}; save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(
            f"{path} cannot be read behind line {number}: {error}; look for a quotation mark that "
            "is never closed, or for a damaged cell"
        ) from error
    return rows


def _name_fault(cells: Sequence[str], columns: Columns, fault: str, faults: Faults) -> Iterator[_Row]:
    """Take a row that cannot be read; its image, if that is clear, has one object less."""
    file = cells[columns.file].strip() if len(cells) >= _needed(columns) else ""
    entry, _, reason = fault.partition(": ")
    if file:
        faults.add_entry(file, fault)
        yield _Row(file, None, "", None, False)
    else:
        faults.add_entry(entry, reason)


def _needed(columns: Columns) -> int:
    return 1 + max(columns.file, columns.name, *columns.box, *(columns.size or ()), columns.crowd or 0)


def _cells(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        for cells in reader:
            yield reader.line_num, cells


def _row(
    cells: Sequence[str], columns: Columns, separator: str, where: str, path: Path, findings: list[Finding]
) -> _Row:
    if len(cells) < _needed(columns):
        raise ValueError(f"it has {len(cells)} cells, and its table at least {_needed(columns)}")
    file = cells[columns.file].strip()
    if not file:
        raise ValueError("it names no image")
    texts = [cells[index].strip() for index in columns.box]
    size = _size([cells[index] for index in columns.size]) if columns.size is not None else None
    name = compose_name(cells[columns.name])
    if not any(texts):
        if name:
            findings.append(Finding(ROW_WITHOUT_BOX, file, f"{path.name} {where}: {name}"))
        return _Row(file, size, "", None, False)
    if separator != ",":
        texts = [text.replace(",", ".") for text in texts]
    values = [number_of(text) for text in texts]
    if None in values:
        wrong = texts[values.index(None)]
        raise ValueError(f"coordinates must be four finite numbers, not {wrong[:40]!r}; correct or delete the row")
    if not name:
        raise ValueError("its object has no class")
    corners = [value for value in values if value is not None]
    if columns.has_sides:
        corners = [corners[0], corners[1], corners[0] + corners[2], corners[1] + corners[3]]
    else:
        ordered, swapped = order_corners(corners)
        corners = list(ordered)
        if swapped:
            findings.append(Finding(SWAPPED_CORNERS, file, f"{path.name} {where}: {' '.join(texts)}"))
    return _Row(file, size, name, corners, columns.crowd is not None and _is_marked(cells[columns.crowd]))


def _is_marked(text: str) -> bool:
    """Return the mark of crowd regions.

    Raises:
        ValueError: it is neither yes nor no.
    """
    mark = _MARKS.get(text.strip().lower().removesuffix(".0"))
    if mark is None:
        raise ValueError(f"the mark of a crowd region must be 0 or 1, yes or no, not {text.strip()[:40]!r}")
    return mark


def _size(texts: Sequence[str]) -> tuple[int, int] | None:
    values = [number_of(text) for text in texts]
    if not all(value is not None and 1 <= value < 1e9 for value in values):
        return None
    height, width = (int(value) for value in values if value is not None)
    return height, width


def _are_fractions(rows: Sequence[_Row]) -> bool:
    values = np.array([row.corners for row in rows if row.corners is not None], dtype=np.float64)
    return values.size > 0 and bool(((values >= 0) & (values <= 1)).all() and (values != np.round(values)).any())
