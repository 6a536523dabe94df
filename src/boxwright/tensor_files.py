"""Files of tensors, safetensors and torch's own, read without executing anything in them."""

from __future__ import annotations

import pickletools
import struct
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from boxwright.stand_ins import make_stand_in

_SIGNATURES = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
    b"<": "a web page: the download went wrong",
}

_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number that torch's files before version 1.6 begin with."""

_NUM_LEGACY_PICKLES = 4
"""Of the first of which, magic number, protocol and system, only the last holds values."""

_BLOCKED = ("os", "posix", "nt", "sys", "subprocess")
"""Modules that torch lets no file name at all, and one more."""

_REFUSED = ("builtins.bytearray",)
"""Names that torch allows, and that make memory of a number."""

_LOCK = threading.Lock()
"""Names that a file may use are global to torch's reader."""

FileFormat = Literal["safetensors", "torch", "legacy"]


class _RefusedError(Exception):
    """The reason for which a file is not read."""


class TensorFile(NamedTuple):
    """Content of a file: a mapping of tensors or of anything else, and the texts in a header of safetensors."""

    content: Any
    metadata: Mapping[str, str]


def read_tensor_file(path: Path) -> TensorFile:
    """Read a file of tensors onto the CPU. Values of classes that are not torch's are ``StandIn``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another kind of file, a damaged one, or one that would have to be executed; in one line.
    """
    kind = file_format(path)
    try:
        if kind == "safetensors":
            return _read_safetensors(path)
        content = _read_torch(path, kind)
        _check_tensors(content, path.stat().st_size)
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from error
    except PermissionError:
        raise
    except Exception as error:  # Bytes that are no tensors make nearly every type of error that there is.
        raise ValueError(
            f"{path}: damaged, or not weights alone: it is not readable as tensors and plain values"
        ) from error
    return TensorFile(content, {})


def file_format(path: Path) -> FileFormat:
    """Determine the format of a file by its first bytes.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a file of tensors.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file of weights")
    if not path.is_file():
        kind = "not a regular file" if path.exists() else "no such file"
        raise FileNotFoundError(f"{path}: {kind}")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return "torch"
    if start.startswith(_LEGACY):
        return "legacy"
    # The header of safetensors is JSON, behind its length.
    if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= path.stat().st_size:
        return "safetensors"
    kind = next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), "")
    if not start:
        kind = "an empty file"
    raise ValueError(f"{path}: not a file of weights, or a damaged one" + (f"; it is {kind}" if kind else ""))


def peek_strings(path: Path, count: int = 2) -> list[str]:
    """List the first texts in a torch file or the keys of a header, reading a few bytes only; none if damaged."""
    texts: list[str] = []
    try:
        if file_format(path) != "torch":
            return texts
        with zipfile.ZipFile(path) as archive, archive.open(_pickle_name(archive)) as file:
            for _, argument, _ in pickletools.genops(file.read(4096)):
                if isinstance(argument, str):
                    texts.append(argument)
                if len(texts) == count:
                    break
    except Exception:  # Read in full, the file ends in an error that says more.
        return texts
    return texts


def _read_safetensors(path: Path) -> TensorFile:
    with safe_open(path, framework="pt") as file:
        return TensorFile({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118


def _read_torch(path: Path, kind: FileFormat) -> Any:
    names = set(_names_in_archive(path) if kind == "torch" else _names_in_legacy(path))
    for name in sorted(names):
        if name.partition(".")[0] in _BLOCKED or name in _REFUSED:
            raise _RefusedError(f"refused, for reading it would call {name}; weights need no such thing")
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.serialization.safe_globals([(make_stand_in(name), name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)


def _names_in_archive(path: Path) -> Iterator[str]:
    """List the classes and functions that an archive names, after making sure that it is no larger than it seems."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any("/code/" in entry.filename or entry.filename.endswith("constants.pkl") for entry in entries):
            raise _RefusedError(
                "a TorchScript archive, which is a program; save its weights alone: "
                "torch.save(torch.jit.load(FILE).state_dict(), ...)"
            )
        size = path.stat().st_size
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or size < sum(
            entry.file_size for entry in entries
        ):
            raise _RefusedError("a zip archive, but not of torch: its entries are compressed")
        name = _pickle_name(archive)
        with archive.open(name) as file:
            yield from _names_in_pickle(file)


def _pickle_name(archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise _RefusedError("a zip archive, but not of torch: it has no tensors")
    return names[0]


def _names_in_legacy(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for _ in range(_NUM_LEGACY_PICKLES):
            yield from _names_in_pickle(file)


def _names_in_pickle(file: Any) -> Iterator[str]:
    for code, argument, _ in pickletools.genops(file):
        if code.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            # Pickles of this protocol have the names of Python 2.
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            yield f"{module}.{name}"


def _check_tensors(content: Any, size: int) -> None:
    """Make sure that tensors are plain ones with memory of their own: a file can claim any shape.

    Raises:
        _RefusedError: a tensor larger than the file, or of another kind.
    """
    unseen, seen = [content], set()
    while unseen:
        value = unseen.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise _RefusedError("holds tensors that are sparse, quantized or without content")
            if value.numel() * value.element_size() > size:
                raise _RefusedError(f"holds a tensor {list(value.shape)}, larger than the file")
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            unseen += value.values() if isinstance(value, Mapping) else value
