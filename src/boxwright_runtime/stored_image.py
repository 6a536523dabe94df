"""Image files that are in no folder: in an archive, or on another machine."""

from __future__ import annotations

from abc import ABC, abstractmethod


class StoredImage(ABC):
    """An image file whose bytes are read when it is its turn, in any thread."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A name for messages, that tells it from all others."""

    @abstractmethod
    def load(self) -> bytes:
        """Read its bytes.

        Raises:
            OSError: they cannot be read.
            ValueError: they are damaged.
        """
