"""Files by address (``s3://bucket/name``), through fsspec."""

from __future__ import annotations

import re
from typing import Any

from boxwright_runtime.printable_names import printable

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_address(text: str) -> bool:
    """Tell an address from a path."""
    return _ADDRESS.match(text) is not None


def open_storage(address: str) -> tuple[Any, str]:
    """Return the file system of an address, as fsspec has it, and the path in it.

    Raises:
        ValueError: fsspec, or what it needs for such addresses, is not installed; or it knows none like this.
    """
    if "::" in address:
        # An entry that is listed by such an address has lost the rest of it.
        raise ValueError(f"{printable(address)}: chained addresses are not read; give that of the archive itself")
    try:
        import fsspec
    except ImportError as error:
        raise ValueError(f"{printable(address)} needs fsspec: pip install 'boxwright[volume]'") from error
    try:
        storage, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{printable(address)}: {' '.join(str(error).split())}") from error
    return storage, str(path)


def local_path(address: str) -> str | None:
    """Return the path of an address on this machine, ``file://...``; None of another one."""
    if address.startswith("file://"):
        return address.removeprefix("file://")
    return address.removeprefix("local://") if address.startswith("local://") else None
