"""A check of every image of a data set before it is used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from boxwright.data.image_inspection import ImageFacts, ImageFailure, image_size, inspect_image
from boxwright.data.image_memory import FileStamp, recall_facts, remember_facts, stamp_files
from boxwright_runtime.image_file import SUFFIXES as SUFFIXES
from boxwright_runtime.printable_names import first_names as first_names

ProgressCallback = Callable[[int, int], None]
"""Called as ``progress(done, total)`` while images are checked."""

_CHUNK = 32
_SECONDS_BETWEEN_WRITES = 10.0


def inspect_images(
    folder: Path, names: Sequence[str], *, decode: bool = True, progress: ProgressCallback | None = None
) -> list[ImageFacts | ImageFailure]:
    """Inspect every image of a data set, each once in its life: the facts are remembered outside the data set.

    Args:
        folder: where the images are.
        names: paths of the images inside ``folder``.
        decode: read and decode the images entirely, so that damaged ones are found; else only their headers, where
            nothing is remembered, and the facts have no hashes.
        progress: called as ``progress(done, total)``.

    Returns:
        For each name the facts, or why the image cannot be read; see ``require_readable``.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"image folder {folder} does not exist")
    stamps = stamp_files(folder, names)
    results: dict[str, ImageFacts | ImageFailure] = {**recall_facts(folder, names, stamps)}
    # A name may be listed twice.
    missing = {name: stamp for name, stamp in zip(names, stamps, strict=True) if name not in results}
    done = len(names) - len(missing)
    if progress is not None and done:
        progress(done, len(names))
    unsaved: dict[str, tuple[FileStamp, ImageFacts]] = {}
    written = time.monotonic()
    for name, result in _inspect_in_parallel(folder, list(missing), decode):
        results[name] = result
        stamp = missing[name]
        if decode and stamp is not None and isinstance(result, ImageFacts):
            unsaved[name] = stamp, result
        if time.monotonic() - written > _SECONDS_BETWEEN_WRITES:
            remember_facts(folder, unsaved)
            unsaved, written = {}, time.monotonic()
        done += 1
        if progress is not None:
            progress(done, len(names))
    remember_facts(folder, unsaved)
    return [results[name] for name in names]


def require_readable(
    folder: Path, results: Sequence[ImageFacts | ImageFailure], *, total: int | None = None
) -> list[ImageFacts]:
    """Return the facts of all images.

    Args:
        folder: where the images are, for the message.
        results: of ``inspect_images``.
        total: number of images, where those that are there are not among the results.

    Raises:
        ValueError: some images are missing or cannot be read: how many, and the names of the first.
    """
    facts = [one for one in results if isinstance(one, ImageFacts)]
    failures = [one for one in results if isinstance(one, ImageFailure)]
    if not failures:
        return facts
    missing = [one.name for one in failures if one.is_missing]
    unreadable = [one.name for one in failures if not one.is_missing]
    problems = [f"{len(missing)} missing: {first_names(missing)}"] if missing else []
    problems += [f"{len(unreadable)} unreadable: {first_names(unreadable)}"] if unreadable else []
    reason = next((f" ({one.reason})" for one in failures if not one.is_missing), "")
    raise ValueError(
        f"of {len(results) if total is None else total} images in {folder}, {' and '.join(problems)}{reason}; "
        "restore the files or take them out of the data set"
    )


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Check that there is a file for each image, without opening it.

    Args:
        folder: where the images are.
        names: paths of the images inside ``folder``.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
        ValueError: some are missing: how many, and the names of the first.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"image folder {folder} does not exist")
    prefix = os.path.join(folder, "")
    missing = [name for name in names if not os.path.isfile(prefix + name)]
    if missing:
        require_readable(folder, [ImageFailure(name, True, "") for name in missing], total=len(names))


def _inspect_in_parallel(
    folder: Path, names: Sequence[str], decode: bool
) -> Iterator[tuple[str, ImageFacts | ImageFailure]]:
    """Inspect images in the order of their names, some of them ahead."""
    chunks = (names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK))
    workers = min(16, 2 * len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes without the GIL
        ahead: list[Future[list[ImageFacts | ImageFailure]]] = []
        waiting: list[Sequence[str]] = []
        try:
            for chunk in chunks:
                ahead.append(pool.submit(_inspect_chunk, folder, chunk, decode))
                waiting.append(chunk)
                if len(ahead) > 2 * workers:
                    yield from zip(waiting.pop(0), ahead.pop(0).result(), strict=True)
            for chunk, future in zip(waiting, ahead, strict=True):
                yield from zip(chunk, future.result(), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _inspect_chunk(folder: Path, names: Sequence[str], decode: bool) -> list[ImageFacts | ImageFailure]:
    return [_inspect(folder, name, decode) for name in names]


def _inspect(folder: Path, name: str, decode: bool) -> ImageFacts | ImageFailure:
    try:
        path = folder / name
        return inspect_image(path) if decode else ImageFacts(*image_size(path))
    except (OSError, ValueError) as error:
        return ImageFailure(name, isinstance(error, FileNotFoundError), str(error))
