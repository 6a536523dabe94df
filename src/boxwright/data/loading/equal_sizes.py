"""Batches of equal input size, for evaluation.

Convolutions see the padding around a smaller image: with any, detections in an image would depend on the other images
of its batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def group_equal_sizes(sizes: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Group images of equal input size into batches of at most ``batch_size``.

    Args:
        sizes: (height, width) of the network input of each image.
        batch_size: most images of a batch.

    Returns:
        Indices into ``sizes``, each once; in their order as far as sizes are equal.
    """
    indices = defaultdict(list)
    for index, size in enumerate(sizes):
        indices[size].append(index)
    return [alike[i : i + batch_size] for alike in indices.values() for i in range(0, len(alike), batch_size)]


def divide_batches(
    batches: Sequence[list[int]], sizes: Sequence[tuple[int, int]], world_size: int
) -> list[list[list[int]]]:
    """Divide batches among processes so that all have about as many pixels.

    Args:
        batches: of ``group_equal_sizes``.
        sizes: (height, width) of the network input of each image.
        world_size: number of processes.

    Returns:
        the batches of each process, in their order; none where there are fewer than processes.
    """
    pixels = [sum(sizes[index][0] * sizes[index][1] for index in batch) for batch in batches]
    loads, owner = [0] * world_size, [0] * len(batches)
    for number in sorted(range(len(batches)), key=lambda number: -pixels[number]):
        owner[number] = loads.index(min(loads))
        loads[owner[number]] += pixels[number]
    return [[batch for batch, own in zip(batches, owner, strict=True) if own == rank] for rank in range(world_size)]
