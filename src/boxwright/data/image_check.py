"""A check of every image of a data set before it is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boxwright.data.images import check_image, image_size

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
"""Suffixes of image files, in lower case."""

ProgressCallback = Callable[[int, int], None]
"""Called as ``progress(done, total)`` while images are checked."""


def measure_images(
    folder: Path, names: Sequence[str], *, decode: bool, progress: ProgressCallback | None = None
) -> list[tuple[int, int]]:
    """Measure (height, width) of every image after its EXIF rotation.

    Args:
        folder: where the images are.
        names: paths of the images inside ``folder``.
        decode: read the images entirely, so that truncated ones are found, not only their headers.
        progress: called as ``progress(done, total)``.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
        ValueError: some images are missing or cannot be read: how many, and the names of the first.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"image folder {folder} does not exist")
    look = check_image if decode else image_size

    def measure(name: str) -> tuple[int, int] | OSError | ValueError:
        try:
            return look(folder / name)
        except (OSError, ValueError) as error:
            return error

    sizes, missing, unreadable = [], [], []
    first_error: Exception | None = None
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:  # Pillow decodes without the GIL
        for done, (name, result) in enumerate(zip(names, pool.map(measure, names), strict=True), start=1):
            if isinstance(result, FileNotFoundError):
                missing.append(name)
            elif isinstance(result, Exception):
                unreadable.append(name)
                first_error = first_error or result
            else:
                sizes.append(result)
            if progress is not None:
                progress(done, len(names))
    if missing or unreadable:
        problems = [f"{len(missing)} missing: {first_names(missing)}"] if missing else []
        problems += [f"{len(unreadable)} unreadable: {first_names(unreadable)}"] if unreadable else []
        reason = f" ({first_error})" if first_error else ""
        raise ValueError(
            f"of {len(names)} images in {folder}, {' and '.join(problems)}{reason}; "
            "restore the files or take them out of the data set"
        )
    return sizes


def first_names(names: Sequence[str], count: int = 3) -> str:
    """Join the first few of some names, for a message."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
