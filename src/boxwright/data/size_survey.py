"""Sizes of objects as the network sees them: in evaluation, and in training, drawn without reading any image.

The side that counts is the shorter one of a box: training drops objects by it (``SMALLEST_SIDE``), and it decides how
much of the overlap an error of one pixel costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from boxwright.data.crop import Crop
from boxwright.data.loading.sampler import SampleKey, augmentation_rng
from boxwright.data.records import DetectionData, Record
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.mosaic import MosaicLayout
from boxwright.data.transforms.transform import SMALLEST_SIDE
from boxwright_runtime.input_format import InputFormat, ResizeRule

SMALL_SIDE = 8.0
"""Shorter side of a box, in pixels of the network input, below which an object is small: less than a cell of the finest
map of most detectors, where an error of one pixel costs an eighth of the overlap."""

SMALL_FRACTION = 0.05
"""Fraction of small objects that is no fault of the image size."""

SIZE_STEP = 32
"""Image sizes that are suggested are multiples of this many pixels."""

_TOLERANCE = 0.01
_CHUNK = 10_000


class ObjectSides(NamedTuple):
    """Shorter sides of the objects of a data set, without crowd regions.

    ``labels`` are their classes; ``sides`` are in pixels of the network input of evaluation, ``image_sides`` in pixels
    of the images themselves.
    """

    labels: Int64[np.ndarray, " n"]
    sides: Float32[np.ndarray, " n"]
    image_sides: Float32[np.ndarray, " n"]

    def below(self, limit: float) -> Bool[np.ndarray, " n"]:
        """Tell which objects are below a limit in the network input; rounding does not count."""
        small: Bool[np.ndarray, " n"] = self.sides < limit - _TOLERANCE
        return small


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawnObjects:
    """Objects of training samples, counted by class.

    Args:
        images: samples that were drawn.
        total: objects in their images.
        cropped: objects that a crop left out, or nearly.
        too_small: objects dropped because they became smaller than a pixel.
        small: objects left whose shorter side is below 8 pixels.
    """

    images: int
    total: Int64[np.ndarray, " k"]
    cropped: Int64[np.ndarray, " k"]
    too_small: Int64[np.ndarray, " k"]
    small: Int64[np.ndarray, " k"]


def measure_sides(data: DetectionData, input_format: InputFormat) -> ObjectSides:
    """Measure every object as evaluation shows it."""
    scales = _scales_by_size(input_format)
    parts = [_measure_chunk(chunk, [scales(r.height, r.width) for r in chunk]) for chunk in _chunks(data.records)]
    if not parts:
        return ObjectSides(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))
    return ObjectSides(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def measure_scales(data: DetectionData, input_format: InputFormat) -> Float64[np.ndarray, "n 2"]:
    """Return (across, down) of every image: pixels of the network input of evaluation for one of the image."""
    scales = _scales_by_size(input_format)
    return np.array([scales(r.height, r.width) for r in data.records], np.float64).reshape(-1, 2)


def mending_size(sides: Float32[np.ndarray, " n"], image_size: int) -> int | None:
    """Return the least image size at which at most 5 % of objects are below 8 pixels, or None where it is this one.

    Args:
        sides: of the objects at ``image_size``; they grow with it.
        image_size: of the recipe.

    Returns:
        A multiple of 32 pixels.
    """
    allowed = int(SMALL_FRACTION * len(sides))
    if len(sides) == allowed:
        return None
    side = float(np.partition(sides, allowed)[allowed])
    if side >= SMALL_SIDE - _TOLERANCE:
        return None
    exact = image_size * (SMALL_SIDE - _TOLERANCE) / max(side, 1e-3)
    return int(-(-exact // SIZE_STEP) * SIZE_STEP)


def draw_objects(
    data: DetectionData,
    keys: Iterable[SampleKey],
    augmentation: Augmentation,
    input_format: InputFormat,
    seed: int,
) -> DrawnObjects:
    """Draw the crops of training samples, exactly as training with this seed draws them, and count their objects.

    Of samples of several images only the objects of the first are counted, in a mosaic too.

    Args:
        data: the images.
        keys: of the samples.
        augmentation: random changes, and the way to the network input.
        input_format: size of the network input by the image and the image size of a key.
        seed: of the run.
    """
    counts = np.zeros((4, len(data.categories)), np.int64)
    images = 0
    for key in keys:
        record = data.records[key.record]
        labels = record.labels[~record.crowd]
        for row, mask in zip(counts, _draw_sample(data, key, augmentation, input_format, seed), strict=True):
            row += np.bincount(labels[mask], minlength=counts.shape[1])
        images += 1
    total, cropped, too_small, small = counts
    return DrawnObjects(images=images, total=total, cropped=cropped, too_small=too_small, small=small)


def draw_mosaic_layout(
    data: DetectionData, key: SampleKey, augmentation: Augmentation, rule: ResizeRule, rng: np.random.Generator
) -> MosaicLayout | None:
    """Draw the mosaic that a training sample is, without reading any image; None where it is of a single one.

    Args:
        data: the images.
        key: of the sample.
        augmentation: random changes.
        rule: size of the network input.
        rng: of the sample, before anything else is drawn.
    """

    def draw_shape() -> tuple[int, int]:
        other = data.records[data.draw_image(rng)]
        return other.height, other.width

    if not key.is_mixed:
        return None
    record = data.records[key.record]
    return augmentation.draw_mosaic((record.height, record.width), draw_shape, rule, rng)


def thin_out(data: DetectionData, max_images: int) -> DetectionData:
    """Return the data set with so many of its images at most, evenly chosen."""
    count = len(data.records)
    if count <= max_images:
        return data
    indices = np.linspace(0, count - 1, max_images).astype(int)
    facts = tuple(data.facts[index] for index in indices.tolist()) if len(data.facts) == count else data.facts
    return replace(data.select(indices), facts=facts)


def _scales_by_size(input_format: InputFormat) -> Callable[[int, int], tuple[float, float]]:
    @lru_cache(maxsize=10_000)
    def scales(height: int, width: int) -> tuple[float, float]:
        x1, y1, x2, y2 = input_format.window(height, width)
        rows, columns = input_format.input_size(height, width)
        return columns / (x2 - x1), rows / (y2 - y1)

    return scales


def _chunks(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    for first in range(0, len(records), _CHUNK):
        yield records[first : first + _CHUNK]


def _measure_chunk(records: Sequence[Record], scales: list[tuple[float, float]]) -> ObjectSides:
    counts = [len(record.labels) for record in records]
    single = ~np.concatenate([record.crowd for record in records])
    rows = np.repeat(np.arange(len(records)), counts)[single]
    xywh: Float64[np.ndarray, "n 4"] = np.concatenate([record.bbox_xywh for record in records])[single]
    labels = np.concatenate([record.labels for record in records])[single]
    sizes = np.array([(record.width, record.height) for record in records], np.float64)[rows]
    corner = xywh[:, :2].clip(0, sizes)
    lengths = (xywh[:, :2] + xywh[:, 2:]).clip(0, sizes) - corner
    shown = lengths * np.array(scales, np.float64)[rows]
    return ObjectSides(labels, shown.min(1).astype(np.float32), lengths.min(1).astype(np.float32))


def _draw_sample(
    data: DetectionData, key: SampleKey, augmentation: Augmentation, input_format: InputFormat, seed: int
) -> tuple[Bool[np.ndarray, " n"], ...]:
    """Tell which objects there are, which a crop leaves out, which are dropped as too small, and which are small."""
    record, rng, rule = data.records[key.record], augmentation_rng(seed, key), input_format.resize_rule(key.image_size)
    boxes, mosaic = record.boxes()[~record.crowd], draw_mosaic_layout(data, key, augmentation, rule, rng)
    if mosaic is not None:
        inside, whole = np.ones(len(boxes), bool), mosaic.move_boxes(0, boxes)
        moved, whole_sides = whole.clip(0, np.array(mosaic.input_size[::-1] * 2)), _sides(whole)
    else:
        crop, kept = augmentation.draw_crop(record.height, record.width, boxes, rule, rng, is_strong=key.is_strong)
        inside = np.isin(np.arange(len(boxes)), kept)
        moved, whole_sides = crop.boxes(boxes), _whole_sides(boxes, crop)
    too_small = inside & (whole_sides < SMALLEST_SIDE)
    visible = inside & (_sides(moved) >= SMALLEST_SIDE)
    return (
        np.ones(len(boxes), bool),
        ~visible & ~too_small,
        too_small & ~visible,
        visible & (_sides(moved) < SMALL_SIDE),
    )


def _sides(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    shorter: Float[np.ndarray, " n"] = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf)
    return shorter


def _whole_sides(boxes: Float32[np.ndarray, "n 4"], crop: Crop) -> Float64[np.ndarray, " n"]:
    """Return the shorter sides that boxes have at the scale of a crop where it does not cut them."""
    (x1, y1, x2, y2), (height, width) = crop.window, crop.input_size
    scale = np.array([width / (x2 - x1), height / (y2 - y1)])
    sides: Float64[np.ndarray, " n"] = ((boxes[:, 2:] - boxes[:, :2]) * scale).min(1, initial=np.inf)
    return sides
