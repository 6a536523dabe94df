"""Batches of equal canvases, for evaluation and prediction.

Convolutions see the padding around a smaller image: with any, what is found in an image would depend on its
neighbors in the batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from boxwright.data.images import ImageLike, as_rgb, resample
from boxwright.data.input_format import InputFormat
from boxwright.structures import ImageSize

MAX_WAITING = 8
"""Batches' worth of canvases that wait until others of their size come."""


class PreparedImage(NamedTuple):
    """An image that was read and resized, and its place among the others."""

    place: int
    canvas: UInt8[Tensor, "3 height width"]
    size: ImageSize


def group_equal_sizes(canvases: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Every image once, in batches of at most ``batch_size`` whose canvases are equal.

    Args:
        canvases: (height, width) of each image's.
        batch_size: most images of a batch.

    Returns:
        Places in ``canvases``; in their order as far as canvases are equal.
    """
    places = defaultdict(list)
    for place, canvas in enumerate(canvases):
        places[canvas].append(place)
    return [alike[i : i + batch_size] for alike in places.values() for i in range(0, len(alike), batch_size)]


def prepare_equal_sizes(
    images: Iterable[ImageLike],
    input_format: InputFormat,
    batch_size: int,
) -> Iterator[list[PreparedImage]]:
    """The same of images whose sizes are known only once they are read, which they are in their order.

    Batches are full but for the last of each canvas, and for those that make room where too many canvases wait.

    Args:
        images: in any form that ``as_rgb`` takes.
        input_format: their canvases.
        batch_size: most images of a batch.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: something is not an image.
    """
    waiting: dict[tuple[int, int], list[PreparedImage]] = defaultdict(list)
    for place, image in enumerate(images):
        rgb = as_rgb(image)
        height, width = rgb.shape[:2]
        shape = input_format.canvas(height, width)
        canvas = resample(rgb, input_format.window(height, width), *shape)
        waiting[shape].append(PreparedImage(place, canvas, ImageSize(height, width, *shape)))
        if len(waiting[shape]) == batch_size:
            yield waiting.pop(shape)
        elif sum(map(len, waiting.values())) >= MAX_WAITING * batch_size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()
