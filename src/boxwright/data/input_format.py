"""Format of network inputs: their size, the part of an image that they show, and their colors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Resize = Literal["square", "shortest_side", "center_crop"]

CENTER_FRACTION = 0.875
"""Side of the central square, as a fraction of an image's shortest side: 224 pixels of 256."""


class Window(NamedTuple):
    """The part of an image that becomes the network input, in pixels of the image.

    It may reach outside the image: that part of the network input is filled.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    @classmethod
    def whole(cls, height: int, width: int) -> Window:
        """Return the window that is all of an image of this size."""
        return cls(0.0, 0.0, float(width), float(height))


class ResizeRule(NamedTuple):
    """The way from the size of an image to that of its network input, in pixels.

    Args:
        image_size: side of a square input, or the shortest side of one that keeps the aspect ratio.
        resize: a square of the whole image, the whole image in its own shape, or a square of its middle.
        max_size: longest side of an input that keeps the aspect ratio; for a longer one, both sides become smaller.
    """

    image_size: int
    resize: Resize = "square"
    max_size: int | None = None

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network input for an image, or a part of one, of this size.

        **Source**: the sizes of facebookresearch/detr 29901c5 (``get_size_with_aspect_ratio``). Hence the longest
        side is rounded down, and may exceed ``max_size`` by what rounding the shortest adds to it. Differs where the
        shortest side would be 0: it is 1, and the longest ``max_size``.
        """
        if self.resize != "shortest_side":
            return self.image_size, self.image_size
        short, long = sorted((height, width))
        shortest = self.image_size
        if self.max_size is not None and long / short * shortest > self.max_size:
            shortest = round(self.max_size * short / long)
        longest = int(shortest * long / short)
        if self.max_size is not None and shortest < 1:
            shortest, longest = 1, self.max_size
        return (shortest, longest) if height <= width else (longest, shortest)

    def window(self, height: int, width: int) -> Window:
        """Return the part of an image of this size that evaluation shows.

        **Source**: of ``center_crop``, torchvision's ``Resize(256)``, then ``CenterCrop(224)``. Differs in the
        rounding: edges are whole pixels of the image, within one of them and one of the input from theirs.
        """
        if self.resize != "center_crop":
            return Window.whole(height, width)
        shown = CENTER_FRACTION * min(height, width)
        side = max(1, round(shown))
        top, left = (min(round((length - shown) / 2), length - side) for length in (height, width))
        return Window(float(left), float(top), float(left + side), float(top + side))


@dataclass(frozen=True, kw_only=True)
class InputFormat:
    """Format of a network's inputs; stored with the model.

    Args:
        image_size: in pixels; side of the network input where that is square, and then a multiple of 32; else the
            shortest side of an image's input.
        resize: ``square`` stretches every image to the same square; ``shortest_side`` keeps the aspect ratio, and
            images of one training batch are padded to the largest; ``center_crop``, for classifiers, shows the
            central square, whose side is 0.875 of the image's shortest.
        max_size: with ``shortest_side``, longest side of an input in pixels; images that would be longer become
            smaller on both sides.
        mean: subtracted from each channel, RGB with values in [0, 1].
        std: divisor of each channel after that.
    """

    image_size: int = 640
    resize: Resize = "square"
    max_size: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be {' or '.join(get_args(Resize))}, not {self.resize}")
        if self.resize != "shortest_side":
            self._check_square()
        elif self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, not {self.image_size}")
        elif self.max_size is not None and self.max_size < self.image_size:
            raise ValueError(f"max_size must be at least image_size ({self.image_size}), not {self.max_size}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ValueError(
                "mean and std must have three numbers each, for red, green and blue, std positive ones; "
                f"they are {self.mean} and {self.std}"
            )

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network input for an image of this size, whatever else is in the batch."""
        return self.resize_rule(self.image_size).input_size(height, width)

    def window(self, height: int, width: int) -> Window:
        """Return the part of an image of this size that its network input shows."""
        return self.resize_rule(self.image_size).window(height, width)

    def resize_rule(self, image_size: int) -> ResizeRule:
        """Return the rule of this format at another image size; ``max_size`` changes with it."""
        max_size = None if self.max_size is None else round(self.max_size * image_size / self.image_size)
        return ResizeRule(image_size, self.resize, max_size)

    def _check_square(self) -> None:
        if self.image_size <= 0 or self.image_size % 32:
            nearest = max(32, round(self.image_size / 32) * 32)
            raise ValueError(
                f"image_size must be a positive multiple of 32, not {self.image_size}; nearest is {nearest}"
            )
        if self.max_size is not None:
            raise ValueError(f"max_size {self.max_size} needs resize shortest_side: a square has one size")
