"""Downloads of files of weights into the cache of torch.hub, checked by their SHA-256, and resumed."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlparse

import torch
from huggingface_hub import constants
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from boxwright.weights.files import file_sha256
from boxwright.weights.hub import shorten

fcntl = import_module("fcntl") if os.name == "posix" else None

CHUNK = 1024 * 1024

TIMEOUT = 30.0
"""Seconds without a byte after which a download counts as interrupted."""


def fetch_file(url: str, sha256_prefix: str | None, *, source: str) -> Path:
    """Find a file in the cache of torch.hub, or download it there.

    Args:
        url: of the file; the last part of it is its name in the cache.
        sha256_prefix: first hexadecimal digits of its SHA-256; None where they are not known.
        source: the model as the user named it, for messages.

    Raises:
        FileNotFoundError: not in the cache, and not to be had; in one line with the folder to put it into.
        ValueError: another file than it should be, or an interrupted download.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / unquote(Path(urlparse(url).path).name)
    if path.is_file():
        _check_hash(path, sha256_prefix, f"{source}: {path}", "delete it to download it again")
        return path
    advice = f"download {url} by other means and put it into {folder}"
    if constants.is_offline_mode():
        raise FileNotFoundError(f"{source}: not in the cache, and HF_HUB_OFFLINE is set; {advice}")
    unfinished = path.with_name(path.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(unfinished) as file:
            if path.is_file():  # Another process was faster.
                return path
            _download(url, file)
            _check_hash(unfinished, sha256_prefix, f"{source}: what {url} sent", "it was deleted; try again")
            os.replace(unfinished, path)
    except urllib.error.HTTPError as error:
        raise FileNotFoundError(f"{source}: {url} answers {error.code} {error.reason}; {advice}") from error
    except (OSError, HTTPException) as error:
        size = unfinished.stat().st_size if unfinished.is_file() else 0
        if size:
            raise ValueError(
                f"{source}: interrupted after {size} bytes ({shorten(error)}); the same command goes on from there"
            ) from error
        raise FileNotFoundError(f"{source}: cannot be downloaded ({shorten(error)}); {advice}") from error
    return path


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open a file to append to, alone, where the system has locks."""
    with path.open("ab") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
        finally:
            if path.is_file() and not path.stat().st_size:
                path.unlink()


def _download(url: str, file: BinaryIO) -> None:
    """Append what is missing of a file; begin anew where the server knows no ranges."""
    start = file.tell()
    with _open(url, start) as response:
        if response.status != 206:
            start = 0
            file.truncate(0)
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(Path(urlparse(url).path).name, total=total, completed=start)
            size = start
            while chunk := response.read(CHUNK):
                file.write(chunk)
                size += len(chunk)
                progress.update(task, completed=size)
    file.flush()
    if total is not None and size < total:
        raise OSError(f"the server sent {size} of {total} bytes")


@contextmanager
def _open(url: str, start: int) -> Iterator[Any]:
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        # More than there is was there already: another file, or one that is complete.
        response = urllib.request.urlopen(url, timeout=TIMEOUT)
    with response:
        yield response


def _check_hash(path: Path, prefix: str | None, name: str, advice: str) -> None:
    if prefix is None:
        return
    digest = file_sha256(path)
    if not digest.startswith(prefix.lower()):
        if path.suffix == ".partial":
            path.unlink()
        raise ValueError(
            f"{name} has the SHA-256 {digest[: max(8, len(prefix))]}..., and should have {prefix}; {advice}"
        )
