"""Format of network inputs: their size, the part of an image that they show, and their colors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal, NamedTuple, get_args

from boxwright_runtime.size_rules import SizeRule, letterbox_size, resized_size

Resize = Literal["square", "shortest_side", "center_crop", "letterbox"]

ChannelOrder = Literal["rgb", "bgr"]

LARGEST = 2**15
"""Pixels of a side at most: such an input takes 12 GiB."""

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


class Resampling(NamedTuple):
    """The way pixels are calculated from those of an image; always bilinear.

    Args:
        antialias: average over all pixels that a smaller image has one for, as Pillow does, and not over the nearest
            four alone.
        floats: keep the results as they are, in [0, 255], and do not round them to bytes.
    """

    antialias: bool = True
    floats: bool = False


DEFAULT_RESAMPLING = Resampling()


class ResizeRule(NamedTuple):
    """The way from the size of an image to that of its network input, in pixels.

    Args:
        image_size: side of a square input, or the shortest side of one that keeps the aspect ratio.
        resize: a square of the whole image, the whole image in its own shape, a square of its middle, or the whole
            image in its own shape within a square.
        max_size: longest side of an input that keeps the aspect ratio; for a longer one, both sides become smaller.
        size_rule: how sides that keep the aspect ratio are rounded.
        pad_multiple: of which the sides of the padded input are multiples.
        resampling: how pixels are calculated.
        fill: RGB of an augmented input where it shows no image.
    """

    image_size: int
    resize: Resize = "square"
    max_size: int | None = None
    size_rule: SizeRule = "detr"
    pad_multiple: int = 1
    resampling: Resampling = DEFAULT_RESAMPLING
    fill: tuple[int, int, int] = (0, 0, 0)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network input for an image, or a part of one, of this size; see size_rules.

        Padding does not count: see ``padded_size``.
        """
        if self.resize == "shortest_side":
            return resized_size(height, width, self.image_size, self.max_size, self.size_rule)
        if self.resize == "letterbox":
            return letterbox_size(height, width, self.image_size)
        return self.image_size, self.image_size

    def padded_size(self, input_height: int, input_width: int) -> tuple[int, int]:
        """Return (height, width) that an input of this size has at least after padding, at the bottom and right."""
        least, multiple = self.image_size if self.resize == "letterbox" else 1, self.pad_multiple
        height, width = (-(-max(side, least) // multiple) * multiple for side in (input_height, input_width))
        return height, width

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
            central square, whose side is 0.875 of the image's shortest; ``letterbox`` keeps the aspect ratio and pads
            to a square, with the mean color in bytes.
        max_size: with ``shortest_side``, longest side of an input in pixels; images that would be longer become
            smaller on both sides. Where only ``image_size`` is typed, it changes in proportion.
        mean: subtracted from each channel, RGB with values in [0, 1].
        std: divisor of each channel after that, RGB too.
        channel_order: of the network input, after mean and std.
        antialias: average over all pixels of an image that becomes smaller, as Pillow does; without it over the
            nearest four, as torchvision's detectors do in floats and OpenCV in bytes.
        resize_floats: do not round resized images to bytes before they are normalized.
        size_rule: with ``shortest_side``, the project whose rounding of the sides is meant.
        pad_multiple: inputs are padded to a multiple of this, with zeros after they are normalized. Boxes are cut
            where the image ends.
    """

    image_size: int = 640
    resize: Resize = "square"
    max_size: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channel_order: ChannelOrder = "rgb"
    antialias: bool = True
    resize_floats: bool = False
    size_rule: SizeRule = "detr"
    pad_multiple: int = 1

    def __post_init__(self) -> None:
        _check_whole_number("image_size", self.image_size)
        _check_choice("resize", self.resize, get_args(Resize))
        _check_choice("channel_order", self.channel_order, get_args(ChannelOrder))
        _check_choice("size_rule", self.size_rule, get_args(SizeRule))
        if self.pad_multiple < 1:
            raise ValueError(f"pad_multiple must be at least 1, which is no padding, not {self.pad_multiple}")
        for name in ("image_size", "max_size", "pad_multiple"):
            if (getattr(self, name) or 0) > LARGEST:
                raise ValueError(f"{name} is at most {LARGEST:,} pixels, not {getattr(self, name)}")
        if self.resize != "shortest_side":
            self._check_square()
        elif self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, not {self.image_size}")
        elif self.max_size is not None and self.max_size < self.image_size:
            raise ValueError(
                f"max_size must be at least image_size ({self.image_size}), not {self.max_size}; "
                "image_size, where it alone is typed, changes both"
            )
        if not all(abs(value) <= LARGEST for value in self.mean):
            raise ValueError(f"mean must have numbers like those of pixels, in [0, 1]; they are {self.mean}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise ValueError(
                "mean and std must have three numbers each, for red, green and blue, std positive ones; "
                f"they are {self.mean} and {self.std}"
            )

    @property
    def resampling(self) -> Resampling:
        """The way pixels are calculated where an image is resized."""
        return Resampling(self.antialias, self.resize_floats)

    @property
    def fill(self) -> tuple[int, int, int]:
        """RGB in bytes around an image: of a letterbox the mean color, else black, which only augmentation shows."""
        if self.resize != "letterbox":
            return 0, 0, 0
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network input for an image of this size, whatever else is in the batch."""
        return self.resize_rule(self.image_size).input_size(height, width)

    def padded_size(self, input_height: int, input_width: int) -> tuple[int, int]:
        """Return (height, width) that an input of this size has after padding, if it is alone in its batch."""
        return self.resize_rule(self.image_size).padded_size(input_height, input_width)

    def window(self, height: int, width: int) -> Window:
        """Return the part of an image of this size that its network input shows."""
        return self.resize_rule(self.image_size).window(height, width)

    def resize_rule(self, image_size: int) -> ResizeRule:
        """Return the rule of this format at another image size; ``max_size`` changes with it."""
        max_size = self._scale_max_size(image_size)
        return ResizeRule(
            image_size, self.resize, max_size, self.size_rule, self.pad_multiple, self.resampling, self.fill
        )

    def at_size(self, image_size: int) -> InputFormat:
        """Return this format at another image size; ``max_size`` changes with it.

        Raises:
            ValueError: the format has no such size.
        """
        _check_whole_number("image_size", image_size)
        return replace(self, image_size=image_size, max_size=self._scale_max_size(image_size))

    def _scale_max_size(self, image_size: int) -> int | None:
        return None if self.max_size is None else round(self.max_size * image_size / self.image_size)

    def _check_square(self) -> None:
        if self.image_size <= 0 or self.image_size % 32:
            nearest = max(32, round(self.image_size / 32) * 32)
            raise ValueError(
                f"image_size must be a positive multiple of 32, not {self.image_size}; nearest is {nearest}"
            )
        if self.max_size is not None:
            raise ValueError(f"max_size {self.max_size} needs resize shortest_side: a square has one size")


def _check_whole_number(name: str, value: object) -> None:
    if not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, not {value!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(choices)}, not {value}")
