"""Objects of an image as a detector without errors sees them in parts of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boxwright_runtime import Detections
from boxwright_runtime.masks import encode_rle
from boxwright_runtime.tiles import Tile

MAX_SIDE = 4096


def draw_objects(
    rng: np.random.Generator, count: int, size: tuple[int, int], *, num_classes: int = 6, largest: float = 1500
) -> Detections:
    """Draw boxes of 8 pixels to ``largest``, half of them below 100, with scores; some reach beyond the image."""
    height, width = size
    top = np.where(np.arange(count) % 2, min(100.0, largest), largest)[:, None]
    sides = np.exp(rng.uniform(np.log(8), np.log(top), (count, 2)))
    centers = rng.uniform(0, 1, (count, 2)) * (width, height)
    boxes = np.concatenate((centers - sides / 2, centers + sides / 2), 1).clip(0, (width, height, width, height))
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 2).all(1)]
    scores = rng.permutation(np.linspace(0.3, 1, len(boxes)))
    return Detections(boxes, scores, rng.integers(0, num_classes, len(boxes)))


def see(objects: Detections, tile: Tile, *, masks: bool = False) -> Detections:
    """Return what a tile shows of objects, in its pixels, best first; masks are the boxes, in whole pixels."""
    boxes = objects.boxes
    boxes = np.concatenate((np.maximum(boxes[:, :2], tile[:2]), np.minimum(boxes[:, 2:], tile[2:])), 1)
    shown = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
    shown = shown[np.argsort(-objects.scores[shown], kind="stable")]
    boxes = boxes[shown] - np.array([tile.left, tile.top] * 2)
    runs = tuple(encode_rle(fill_box(box, tile.size)) for box in boxes) if masks else None
    return Detections(boxes, objects.scores[shown], objects.labels[shown], runs)


def fill_box(box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Draw the mask of a box."""
    mask = np.zeros(size, dtype=np.bool_)
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    mask[y1:y2, x1:x2] = True
    return mask


def rows_of(detections: Detections) -> set[tuple[float, ...]]:
    """Return boxes, to a thousandth of a pixel, with their scores and labels."""
    columns = (np.asarray(detections.boxes).round(3), detections.scores, detections.labels)
    return set(map(tuple, np.column_stack([np.asarray(one) for one in columns]).round(6).tolist()))


def coordinates(height: int, width: int) -> np.ndarray:
    """Draw an image whose pixels say where they are: 12 bits of x and of y each."""
    y, x = np.mgrid[:height, :width]
    code = (y << 12 | x).astype(np.uint32)
    return np.stack((code >> 16, code >> 8 & 255, code & 255), 2).astype(np.uint8)


def tile_of(rgb: np.ndarray) -> Tile:
    """Read from the first pixel which part of such an image it is."""
    red, green, blue = (int(value) for value in rgb[0, 0])
    code = red << 16 | green << 8 | blue
    left, top = code & 4095, code >> 12
    return Tile(left, top, left + rgb.shape[1], top + rgb.shape[0])
