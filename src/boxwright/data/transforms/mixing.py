"""Training samples that are made of several images."""

from __future__ import annotations

from dataclasses import dataclass

from boxwright.data.transforms.mosaic import TILES


@dataclass(frozen=True, kw_only=True)
class MixingOptions:
    """Probabilities that a training sample is made of several images; see ``Augmentation``.

    Args:
        mosaic: of four images in one.
        mixup: of another image over it.
        copy_blend: of a few objects of another image over it.
    """

    mosaic: float = 0.0
    mixup: float = 0.0
    copy_blend: float = 0.0

    @property
    def most_images(self) -> int:
        """Images that a sample is made of, at most."""
        tiles = TILES if self.mosaic else 1
        return 2 * tiles if self.mixup or self.copy_blend else tiles
