"""Painter of images of textured shapes, with the exact visible mask of each.

Everything is drawn from one ``numpy.random.Generator``, so that an image is a function of its seed.
Coordinates are pixels with the center of the first pixel at (0.5, 0.5); colors are RGB in [0, 1].
"""

from __future__ import annotations

import colorsys
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
"""Names of the shapes, in the order of their labels."""

SMALLEST_RADIUS = 14.0  # in pixels
LARGEST_SIDE_FRACTION = 0.42  # radius by the image's shorter side
MOST_SHAPES = 6
LEAST_VISIBLE = 0.65  # of a shape's own area

_PLACEMENT_TRIALS = 8
_SHADOW_BLUR = 5.0
_MARGIN = 8  # of a shape's patch around its circumscribed circle: room for the soft edge of the shadow

Plane = Float32[np.ndarray, "h w"]
Colors = Float32[np.ndarray, "h w 3"]
RGBColor = Float32[np.ndarray, "rgb=3"]


class Shape(NamedTuple):
    """One drawn object: its class as an index into ``CLASSES`` and its visible pixels."""

    label: int
    mask: Bool[np.ndarray, "h w"]


class Scene(NamedTuple):
    """One image and its objects, the farthest first."""

    image: UInt8[np.ndarray, "h w 3"]
    shapes: list[Shape]


class _Patch(NamedTuple):
    """Signed distance to a shape's outline on a rectangle of pixels whose corner is at (top, left)."""

    distance: Plane
    top: int
    left: int


def paint_scene(rng: np.random.Generator, height: int, width: int, num_shapes: int) -> Scene:
    """Paint a background and up to ``num_shapes`` shapes over it, the later ones in front.

    A shape at a position that would hide a third of itself or of an earlier one gets another position, and is left
    out where eight positions fail: everything in the image is annotated, and everything annotated can be recognized.

    Args:
        rng: the only source of chance.
        height: of the image, in pixels.
        width: of the image, in pixels.
        num_shapes: how many are attempted.
    """
    colors, backdrop = _background(rng, height, width)
    shapes: list[Shape] = []
    full_areas: list[int] = []
    for _ in range(num_shapes):
        label = int(rng.integers(len(CLASSES)))
        for _ in range(_PLACEMENT_TRIALS):
            patch = _place(rng, CLASSES[label], height, width)
            mask = _mask(patch, height, width)
            full_area = int((patch.distance < 0).sum())
            visible = [shape.mask & ~mask for shape in shapes] + [mask]
            if _all_recognizable(visible, [*full_areas, full_area]):
                _draw(rng, colors, patch, backdrop)
                shapes = [Shape(s.label, v) for s, v in zip(shapes, visible, strict=False)] + [Shape(label, mask)]
                full_areas.append(full_area)
                break
    grain = rng.normal(0.0, rng.uniform(0.0, 0.03), (height, width, 1))
    image = ((colors + grain).clip(0, 1) * 255).round().astype(np.uint8)
    return Scene(image, shapes)


def signed_distance(kind: str, x: Plane, y: Plane, radius: float) -> Plane:
    """Compute the distance to the outline of an upright shape around the origin; negative inside, mitered at corners.

    Args:
        kind: one of ``CLASSES``.
        x: coordinates to the right, in pixels.
        y: coordinates upwards, in pixels.
        radius: of the circumscribed circle, in pixels.

    Raises:
        ValueError: ``kind`` is not one of ``CLASSES``.
    """
    distance: Plane
    match kind:
        case "circle":
            distance = np.hypot(x, y) - radius
        case "ring":
            distance = np.abs(np.hypot(x, y) - 0.75 * radius) - 0.25 * radius
        case "square":
            distance = np.maximum(np.abs(x), np.abs(y)) - radius / math.sqrt(2)
        case "triangle":
            distance = _star_distance(x, y, radius, points=3, inner=0.5)
        case "star":
            distance = _star_distance(x, y, radius, points=5, inner=0.42)
        case "cross":
            long, short = radius * 0.95, radius * 0.3
            x, y = np.abs(x), np.abs(y)
            distance = np.minimum(np.maximum(x - long, y - short), np.maximum(x - short, y - long))
        case _:
            raise ValueError(f"unknown shape {kind!r}: choose from {', '.join(CLASSES)}")
    return distance


def _star_distance(x: Plane, y: Plane, radius: float, *, points: int, inner: float) -> Plane:
    """Fold the plane onto half a point of a star, as a kaleidoscope does, and measure to the line of its one edge.

    ``inner`` is the radius of the notches as a fraction of ``radius``; cos(pi / points) makes a regular polygon.
    """
    half = math.pi / points
    angle = np.arctan2(x, y)  # from the upward axis, where the first tip is
    folded = np.abs(angle - 2 * half * np.round(angle / (2 * half)))
    reach = np.hypot(x, y)
    notch_x, notch_y = inner * radius * math.cos(half), inner * radius * math.sin(half)
    edge_x, edge_y = radius - notch_x, -notch_y  # from the notch to the tip at (radius, 0)
    length = math.hypot(edge_x, edge_y)
    across: Plane = (reach * np.sin(folded) - notch_y) * edge_x - (reach * np.cos(folded) - notch_x) * edge_y
    return across / length


def _place(rng: np.random.Generator, kind: str, height: int, width: int) -> _Patch:
    """Draw a shape's size, position and rotation; its rim may reach out of the image, its center not."""
    largest = max(SMALLEST_RADIUS, LARGEST_SIDE_FRACTION * min(height, width))
    radius = SMALLEST_RADIUS * (largest / SMALLEST_RADIUS) ** rng.random()
    border = min(0.6 * radius, 0.5 * min(height, width))
    center_x, center_y = rng.uniform(border, width - border), rng.uniform(border, height - border)
    turn = rng.uniform(0, 2 * math.pi)
    reach = radius + _MARGIN
    top, left = math.floor(center_y - reach), math.floor(center_x - reach)
    side = math.ceil(2 * reach) + 1
    x = (np.arange(left, left + side, dtype=np.float32) + np.float32(0.5 - center_x))[None, :]
    y = (np.arange(top, top + side, dtype=np.float32) + np.float32(0.5 - center_y))[:, None]
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return _Patch(signed_distance(kind, x * cos + y * sin, y * cos - x * sin, radius), top, left)


def _mask(patch: _Patch, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    mask = np.zeros((height, width), dtype=bool)
    target, inside = _overlap(patch.distance.shape, patch.top, patch.left, height, width)
    mask[target] = patch.distance[inside] < 0
    return mask


def _all_recognizable(visible: list[Bool[np.ndarray, "h w"]], full_areas: list[int]) -> bool:
    return all(mask.sum() >= LEAST_VISIBLE * full for mask, full in zip(visible, full_areas, strict=True))


def _draw(rng: np.random.Generator, image: Colors, patch: _Patch, backdrop: RGBColor) -> None:
    """Paint shadow, fill and outline; nothing of the look depends on the class."""
    distance, top, left = patch
    height, width = distance.shape
    drop_y, drop_x = rng.integers(1, 5), rng.integers(-3, 4)
    shadow = 0.4 * (0.5 - distance / _SHADOW_BLUR).clip(0, 1)
    _blend(image, np.zeros(3, np.float32), shadow, top + int(drop_y), left + int(drop_x))

    color = _vivid_color(rng, backdrop)
    other = np.clip(color * np.float32(rng.uniform(0.35, 0.8)) + np.float32(rng.uniform(0, 0.35)), 0, 1)
    fill = _mix(color, other, _pattern(rng, height, width))
    _blend(image, fill, (0.5 - distance).clip(0, 1), top, left)
    if rng.random() < 0.5:
        line = rng.uniform(0.8, 2.2)
        edge = np.float32(0.05 if rng.random() < 0.5 else 0.95)
        coverage = (0.5 - np.abs(distance + line / 2) + line / 2).clip(0, 1)
        _blend(image, np.full(3, edge), 0.85 * coverage, top, left)


def _background(rng: np.random.Generator, height: int, width: int) -> tuple[Colors, RGBColor]:
    """Paint a calm, textured background, and return it with its mean color."""
    hue, value = rng.random(), rng.uniform(0.25, 0.9)
    first, second = (
        _rgb(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.05, 0.4), np.clip(value + shift, 0.08, 1.0))
        for shift in (-0.12, rng.uniform(0.0, 0.12))
    )
    image = _mix(first, second, _gradient(rng, height, width))
    texture = _pattern(rng, height, width) - np.float32(0.5)
    image = image + (rng.uniform(0.05, 0.2) * texture)[..., None].astype(np.float32)
    return image, image.mean((0, 1))


def _pattern(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw a random texture with values in [0, 1]: gradient, stripes, checks, dots or clouds."""
    kind = rng.integers(5)
    if kind == 0:
        return _gradient(rng, height, width)
    if kind == 1:
        return _clouds(rng, height, width)
    across, along = _turned_grid(rng, height, width)
    period = rng.uniform(5.0, 24.0)
    across, along = np.sin(across * (2 * math.pi / period)), np.sin(along * (2 * math.pi / period))
    wave = (across, across * along * 2, np.abs(across * along) * 6 - 3)[kind - 2]
    return (0.5 + wave * rng.uniform(0.6, 2.5)).clip(0, 1).astype(np.float32)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Plane:
    ramp, _ = _turned_grid(rng, height, width)
    low, high = float(ramp.min()), float(ramp.max())
    return ((ramp - low) / (high - low)).astype(np.float32)


def _clouds(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Draw value noise: random grids of rising fineness and falling weight, upsampled smoothly and summed."""
    total = np.zeros((height, width), dtype=np.float32)
    for cells, weight in ((3, 0.5), (7, 0.3), (17, 0.2)):
        grid = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        total += weight * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
    return ((total - 0.5) * 1.8 + 0.5).clip(0, 1)


def _turned_grid(rng: np.random.Generator, height: int, width: int) -> tuple[Plane, Plane]:
    """Return pixel coordinates in a system turned by a random angle, its origin at a random position."""
    turn = rng.uniform(0, 2 * math.pi)
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(rng.uniform(0, width))
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(rng.uniform(0, height))
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return x * cos + y * sin, y * cos - x * sin


def _vivid_color(rng: np.random.Generator, backdrop: RGBColor) -> RGBColor:
    """Draw a saturated color that stands out from the background; the last of twenty trials if none does."""
    for _ in range(20):
        color = _rgb(rng.random(), rng.uniform(0.5, 1.0), rng.uniform(0.45, 1.0))
        if np.linalg.norm(color - backdrop) > 0.45:
            break
    return color


def _rgb(hue: float, saturation: float, value: float) -> RGBColor:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, float(value)), dtype=np.float32)


def _mix(first: RGBColor, second: RGBColor, weight: Plane) -> Colors:
    mixed: Colors = first + (second - first) * weight[..., None]
    return mixed


def _blend(
    image: Colors,
    color: RGBColor | Float32[np.ndarray, "rows columns 3"],
    alpha: Float32[np.ndarray, "rows columns"],
    top: int,
    left: int,
) -> None:
    """Paint ``color`` over ``image``, in place; anything outside of it is cut off."""
    target, inside = _overlap(alpha.shape, top, left, *image.shape[:2])
    weight = alpha[inside][..., None]
    paint = color[inside] if color.ndim == 3 else color
    image[target] += (paint - image[target]) * weight


def _overlap(
    shape: tuple[int, ...], top: int, left: int, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the overlap of a patch and an image, as slices of the image and of the patch."""
    rows = slice(max(0, top), max(0, min(height, top + shape[0])))
    columns = slice(max(0, left), max(0, min(width, left + shape[1])))
    inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    return (rows, columns), inside
