"""Images as they are given to a workflow, each with a name for what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from boxwright.files import check_folder
from boxwright.sources.listing import list_source
from boxwright.sources.locations import absolute_location, describe_location
from boxwright.workflows.observer import Observer
from boxwright_runtime.streaming import ImageInput, list_sources


@dataclass(frozen=True)
class NamedImage:
    """One image, and the name that it goes by: relative to the folder or archive that it is in, or the file's own.

    Args:
        name: for the drawing and for JSON.
        source: a path, a ``StoredImage``, or the image itself.
        id: that a manifest gives it; empty where none does.
        location: of its bytes, where they are not in memory.
    """

    name: str
    source: Any
    id: str = ""
    location: str = ""

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
    seen: set[str] = set()
    note = (observer or Observer()).note
    sources = [images] if isinstance(images, str | Path) else list_sources(images)[0]
    for index, source in enumerate(sources):
        if not isinstance(source, str | Path):
            named.append(NamedImage(f"image_{index}.png", source))
            continue
        for one in list_source(str(source), note):
            # Links are images of their own: two names of one file are both predicted.
            if (location := absolute_location(one.location)) not in seen:
                seen.add(location)
                named.append(NamedImage(one.name, one.source, one.id, one.location))
    return named


def distinguish(images: Sequence[NamedImage]) -> Sequence[NamedImage]:
    """Return the same with where it is for a name where two images have the same name."""
    counts = Counter(one.name for one in images)
    return [
        replace(one, name=describe_location(one.location)) if one.location and counts[one.name] > 1 else one
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
    return out / drawing_name(image.name)


def drawing_name(name: str) -> str:
    """Return the name of a drawing in its folder; names in lists and archives may lead out of it."""
    parts = [part for part in PurePosixPath(name.replace("://", "/")).parts if part not in ("..", "/", "//")]
    path = PurePosixPath(*parts or ("image",))
    return str(path if path.suffix.lower() in (".jpg", ".jpeg", ".png") else path.with_suffix(".png"))
