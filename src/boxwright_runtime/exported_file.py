"""Exported files as they lie on the disk: their kind, and the metadata in them, without any runtime.

Of an ONNX file, only the outermost fields are read: the graph, which may have gigabytes, is skipped. What is damaged
within it is for the runtime to find.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple
from xml.etree import ElementTree

from boxwright_runtime.image_file import load_file, open_file
from boxwright_runtime.metadata import METADATA_KEY, Metadata
from boxwright_runtime.printable_names import printable

FileKind = Literal["onnx", "openvino"]

SUFFIXES_OF_KINDS: dict[str, FileKind] = {".onnx": "onnx", ".xml": "openvino"}
"""Suffixes of exported files, in lower case. OpenVINO's have their weights in a .bin of the same name."""

_METADATA_FIELD, _KEY_FIELD, _VALUE_FIELD = 14, 1, 2
"""Numbers of ``ModelProto.metadata_props`` and of the fields of its entries, in onnx.proto."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Forms of values in protocol buffers."""

_LONGEST_NUMBER = 10
"""Bytes of a number at most."""

_WEIGHTS = re.compile(rb'offset="(\d+)" size="(\d+)"')
"""Bytes of one array among the weights of a file of OpenVINO: the first, and how many."""

_HEAD = 256
"""Bytes that tell a file of OpenVINO from others, at its beginning and at its end."""


class ExportedFile(NamedTuple):
    """An exported file: its path, its kind, and its metadata."""

    path: Path
    kind: FileKind
    metadata: Metadata


class _DamagedError(ValueError):
    """The bytes are not what the format prescribes; the caller adds the file's name."""


def is_exported_name(path: str | Path) -> bool:
    """Tell whether a name is that of an exported file, by its suffix."""
    return os.path.splitext(path)[1].lower() in SUFFIXES_OF_KINDS


def read_exported_file(path: str | Path) -> ExportedFile:
    """Read the metadata of an exported file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no exported file, is damaged, or was written by a newer version.
    """
    path, name = Path(path), printable(path)
    kind = SUFFIXES_OF_KINDS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{name}: the name of an exported file ends in {' or '.join(SUFFIXES_OF_KINDS)}")
    try:
        text = _read_onnx(path) if kind == "onnx" else _read_openvino(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder, not an exported file") from None
    except _DamagedError as error:
        raise ValueError(f"{name} cannot be read: {error}; export it again") from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    if text is None:
        raise ValueError(f"{name} was not exported by Boxwright: it has no metadata; see `boxwright export --help`")
    try:
        return ExportedFile(path, kind, Metadata.from_json(text))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read_openvino(path: Path) -> str | None:
    """Return the text among the metadata of a file of OpenVINO; None where it has none.

    They are the last element of the file, which is parsed alone: all of it would take seconds for large networks.
    """
    content = load_file(path)
    beginning, end = content[:_HEAD].lstrip(), content[-_HEAD:].rstrip()
    if not (beginning.startswith((b"<?xml", b"<net")) and b"<net" in beginning and end.endswith(b"</net>")):
        raise _DamagedError("it is no file of OpenVINO, or its end is missing")
    start, stop = content.rfind(b"<rt_info>"), content.rfind(b"</rt_info>")
    if start < 0 or stop < start or content.find(b"</layers>", start) >= 0:
        return None
    try:
        element = ElementTree.fromstring(content[start : stop + len(b"</rt_info>")])
    except ElementTree.ParseError:
        raise _DamagedError("its metadata are damaged") from None
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise _DamagedError(f"its weights, {weights.name}, are not beside it")
    total = max((int(at) + int(length) for at, length in _WEIGHTS.findall(content)), default=0)
    if (size := weights.stat().st_size) != total:
        raise _DamagedError(f"its weights, {weights.name}, have {size:,} bytes and not {total:,}: they are not its own")
    entry = element.find(METADATA_KEY)
    return None if entry is None else entry.get("value")


def _read_onnx(path: Path) -> str | None:
    """Return the text among the metadata of an ONNX file; None where it has none."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise _DamagedError("it is empty")
        text = None
        while file.tell() < size:
            number, form = _read_tag(file)
            if form != _BYTES:
                _skip(file, form)
                continue
            length = _read_number(file)
            if file.tell() + length > size:
                raise _DamagedError("it is no ONNX file, or its end is missing")
            if number == _METADATA_FIELD:
                key, value = _read_entry(file, file.tell() + length)
                text = value if key == METADATA_KEY else text
            else:
                file.seek(length, os.SEEK_CUR)
        if file.tell() != size:
            raise _DamagedError("it is no ONNX file, or its end is missing")
    return text


def _read_entry(file: BinaryIO, end: int) -> tuple[str, str]:
    """Read one pair of texts that ends at a position of the file."""
    texts = {_KEY_FIELD: "", _VALUE_FIELD: ""}
    while file.tell() < end:
        number, form = _read_tag(file)
        if form != _BYTES:
            raise _DamagedError("its metadata are damaged")
        content = file.read(min(_read_number(file), end - file.tell()))
        try:
            texts[number] = content.decode()
        except UnicodeDecodeError:
            raise _DamagedError("its metadata are damaged") from None
    return texts[_KEY_FIELD], texts[_VALUE_FIELD]


def _read_tag(file: BinaryIO) -> tuple[int, int]:
    """Read the number of a field, and the form of its value."""
    tag = _read_number(file)
    if not tag >> 3:
        raise _DamagedError("it is no ONNX file, or a damaged one")
    return tag >> 3, tag & 7


def _read_number(file: BinaryIO) -> int:
    number = 0
    for position in range(_LONGEST_NUMBER):
        byte = file.read(1)
        if not byte:
            raise _DamagedError("it is no ONNX file, or its end is missing")
        number |= (byte[0] & 127) << (7 * position)
        if byte[0] < 128:
            return number
    raise _DamagedError("it is no ONNX file, or a damaged one")


def _skip(file: BinaryIO, form: int) -> None:
    if form == _VARINT:
        _read_number(file)
    elif form in (_FIXED64, _FIXED32):
        file.seek(8 if form == _FIXED64 else 4, os.SEEK_CUR)
    else:
        raise _DamagedError("it is no ONNX file, or a damaged one")
