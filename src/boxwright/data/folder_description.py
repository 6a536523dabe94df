"""Descriptions of folders whose format is not recognized: what is in them, and what they lack."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from boxwright.data.image_check import SUFFIXES
from boxwright.data.readers._csv_columns import missing_columns

_MOST_FILES = 20_000
"""Files that are counted, at most."""

_MOST_BYTES = 20_000_000
"""Bytes of a JSON file that is looked into, at most."""

_OTHER_FORMATS = {
    ".tfrecord": "TFRecord files are not read: export the data set as COCO, Pascal VOC or YOLO",
    ".tfrecords": "TFRecord files are not read: export the data set as COCO, Pascal VOC or YOLO",
    ".parquet": "Parquet files are not read: export the data set as COCO, Pascal VOC or YOLO",
    ".zip": "archives are not read: unpack it",
    ".tar": "archives are not read: unpack it",
}


def count_kinds(folder: Path) -> str:
    """Return the number of files of each kind in a folder and below, the most frequent first."""
    suffixes = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in islice(_files(folder), _MOST_FILES))
    if not suffixes:
        return "no file"
    kinds = [f"{count:,} {suffix}" for suffix, count in suffixes.most_common(6)]
    more = ", ..." if len(suffixes) > 6 else ""
    return f"{'over ' * (suffixes.total() == _MOST_FILES)}{suffixes.total():,} files: {', '.join(kinds)}{more}"


def guess_format(folder: Path) -> str:
    """Return what the folder nearly is, and what it lacks, in one clause; empty where nothing can be said."""
    files = sorted(islice(_files(folder), _MOST_FILES), key=lambda name: (name.count("/"), name))
    of_suffix: dict[str, list[str]] = {}
    for name in files:
        of_suffix.setdefault(os.path.splitext(name)[1].lower(), []).append(name)
    for suffix, look in ((".json", _json), (".xml", _xml), (".csv", _table), (".txt", _text)):
        for name in of_suffix.get(suffix, [])[:3]:
            if not os.path.isfile(folder / name):  # a pipe would be read for ever
                return f"{name} is no file, but a pipe, a device or a link that leads nowhere"
            guess = look(folder / name, name)
            if guess:
                return guess
    other = next((text for suffix, text in _OTHER_FORMATS.items() if suffix in of_suffix), "")
    if other or not files:
        return other
    return "there are images, but no file with annotations" if set(of_suffix) <= SUFFIXES else ""


def _files(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(parent, folder)
        yield from (name if inside == "." else f"{inside}/{name}" for name in names if not name.startswith("."))


def _json(path: Path, name: str) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return ""
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return f"{name} is no valid JSON"
    if isinstance(document, list):
        entry = document[0] if document and isinstance(document[0], dict) else {}
        label_studio = "data" in entry and ("annotations" in entry or "completions" in entry)
        return f"{name} is Label Studio's own JSON: export the project as COCO or YOLO" if label_studio else ""
    if not isinstance(document, dict):
        return ""
    if {"images", "annotations"} & document.keys():
        missing = [key for key in ("images", "annotations", "categories") if key not in document]
        if missing:
            return f"{name} looks like COCO and lacks {', '.join(missing)}"
        return f"{name} looks like COCO: rename it to annotations/train.json, or name it explicitly"
    if any(isinstance(value, dict) and "regions" in value for value in islice(document.values(), 5)):
        return f"{name} is VIA's own JSON: export the project as COCO"
    return ""


def _xml(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(4096).replace(b"\0", b"")
    except OSError:
        return ""
    if re.search(rb"<annotations[\s>]", start):
        return f"{name} is CVAT's own XML: export the task as COCO or Pascal VOC"
    return ""


def _table(path: Path, name: str) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = file.readline(10_000)
        separator = max(",;\t|", key=line.count)
        row = next(csv.reader([line], delimiter=separator), [])
    except (OSError, csv.Error):
        return ""
    missing = missing_columns(row)
    return f"{name} looks like CSV and lacks the columns {', '.join(missing)}" if missing else ""


def _text(path: Path, name: str) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            words = file.readline(1000).split()
    except OSError:
        return ""
    if len(words) >= 5 and all(re.fullmatch(r"[0-9.eE+-]+", word) for word in words):
        return f"{name} looks like a label file of YOLO, and has no data.yaml, and no image beside it or in images/"
    return ""
