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
