"""Images as they are given to a workflow, each with a name for what comes of it."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.files import check_folder
from boxwright.workflows.observer import Observer
from boxwright_runtime.printable_names import printable
from boxwright_runtime.streaming import ImageInput, list_image_files, list_sources


@dataclass(frozen=True)
class NamedImage:
    """One image, and the name that it goes by: relative to the folder that it was found in, or the file's own.

    Args:
        name: for the drawing and for JSON.
        source: a path, or the image itself.
    """

    name: str
    source: Any

    @property
    def path(self) -> Path | None:
        """The file of the image, where it has one."""
        return self.source if isinstance(self.source, Path) else None


def name_images(images: ImageInput | Iterable[ImageInput], observer: Observer | None = None) -> Sequence[NamedImage]:
    """List the images that are meant: files as they are, folders with all below them, globs; each file once, in order.

    Args:
        images: as for ``predict``.
        observer: hears of files in folders that are no images; notes become warnings where None.

    Raises:
        FileNotFoundError: a path or a glob without a match.
        ValueError: a folder without images.
    """
    named: list[NamedImage] = []
    seen: set[Path] = set()
    sources = [images] if isinstance(images, str | Path) else list_sources(images)[0]
    for index, source in enumerate(sources):
        if not isinstance(source, str | Path):
            named.append(NamedImage(f"image_{index}.png", source))
            continue
        for one in _name_files(str(source), observer or Observer()):
            # Links are images of their own: two names of one file are both predicted.
            if (path := Path(os.path.abspath(one.source))) not in seen:
                seen.add(path)
                named.append(one)
    return named


def _name_files(text: str, observer: Observer) -> list[NamedImage]:
    path = Path(text)
    if os.path.isdir(text):
        files = list_image_files(path, observer.note)
        return [NamedImage(inside.relative_to(path).as_posix(), inside) for inside in files]
    if os.path.exists(text):
        return [NamedImage(path.name, path)]
    matches = sorted(match for match in glob.glob(text, recursive=True) if not os.path.isdir(match))
    if not matches:
        raise FileNotFoundError(f"{printable(text)}: no such image or folder")
    return [NamedImage(Path(match).name, Path(match)) for match in matches]


def distinguish(images: Sequence[NamedImage]) -> Sequence[NamedImage]:
    """Return the same with the path for a name where two files have the same name."""
    counts = Counter(one.name for one in images)
    return [
        NamedImage(one.path.as_posix(), one.source) if one.path is not None and counts[one.name] > 1 else one
        for one in images
    ]


def check_drawings(out: Path, images: Sequence[NamedImage]) -> Sequence[NamedImage]:
    """Return the images; make sure that drawing overwrites none, and that each has a drawing of its own.

    Raises:
        ValueError: it would, or two images have the same name.
    """
    check_folder(out)
    sources = {one.path.resolve() for one in images if one.path is not None}
    drawn: dict[Path, NamedImage] = {}
    for one in images:
        target = drawing_path(out, one)
        if target.resolve() in sources:
            raise ValueError(f"{target} is one of the images, and drawing would overwrite it; give another --out")
        if target in drawn:
            raise ValueError(
                f"{drawn[target].source} and {one.source} would both be drawn to {target}; predict one of them alone, "
                "or give the folder above both"
            )
        drawn[target] = one
    return images


def drawing_path(out: Path, image: NamedImage) -> Path:
    """Return where an image is drawn to, as JPEG or PNG, whatever came in."""
    name = Path(image.name)
    return out / (name if name.suffix.lower() in (".jpg", ".jpeg", ".png") else name.with_suffix(".png"))
