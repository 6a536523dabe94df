"""One image as a source lists it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from boxwright.sources.locations import unpack_location
from boxwright_runtime.stored_image import StoredImage


class SourceImage(NamedTuple):
    """An image, not read yet.

    Args:
        name: relative to the folder or the archive that it is in, or as a list has it.
        location: of its bytes, see ``pack_location``.
        id: in the manifest; empty where it has none.
        version: of the file, where that is known already; see ``describe_version``.
    """

    name: str
    location: str
    id: str = ""
    version: str = ""

    @property
    def source(self) -> Path | StoredImage:
        """The path, or what else is read."""
        return unpack_location(self.location)
