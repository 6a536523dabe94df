"""Mosaic: four images in one, together turned, shifted and zoomed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image
from torch import Tensor

from boxwright.data.crop import Crop
from boxwright.data.masks import render_mask_arrays
from boxwright.data.transforms.transform import SMALLEST_SIDE, ObjectMasks, TrainingSample, keep_visible
from boxwright_runtime.input_format import ResizeRule, Window

TILES = 4
"""Images of a mosaic: top left, top right, bottom left, bottom right."""

MAX_ANGLE = 10.0
MAX_SHIFT = 0.1
ZOOM = (0.5, 1.5)


class View(NamedTuple):
    """The part of a mosaic that the network input shows.

    Args:
        angle: by which the mosaic is turned around its center, in degrees, clockwise.
        shift: of the center to the right and down, as fractions of the mosaic's width and height.
        zoom: size that it is shown at; 1 shows the whole mosaic, were it not turned or shifted.
    """

    angle: float
    shift: tuple[float, float]
    zoom: float


def draw_view(rng: np.random.Generator) -> View:
    """Draw an angle of up to 10 degrees, a shift of up to a tenth of the sides and a zoom of 0.5 to 1.5."""
    angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    right, down = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2)
    return View(angle, (right, down), rng.uniform(*ZOOM))


def make_mosaic(samples: Sequence[TrainingSample], resize_rule: ResizeRule, view: View) -> TrainingSample:
    """Make one network input of four images, each of them at half its size.

    The shortest side of each becomes half the image size. They meet in the middle of a mosaic of two by two cells, as
    large as the widest and the highest of them ask for, each in the top left corner of its cell. The mosaic is resized
    as an image of its size would be. An object's box becomes the box around its turned corners, and is clipped to the
    input and dropped as by a crop.

    **Source**: Bochkovskiy et al., "YOLOv4", 2020; as in DEIM (Huang et al., CVPR 2025), ShihuaHuang95/DEIM a9aa4ad
    (``Mosaic`` with ``output_size`` half the input's, then its ``Resize``): the same boxes of a given view. Differs in
    the pixels: there every image is resized, turned without interpolation and resized again; here it is resized once,
    to the size it is shown at and with antialiasing, and turned bilinearly. And in that shifts are no whole pixels.

    Args:
        samples: four of them, with their own images.
        resize_rule: size of the network input in this step.
        view: the part of the mosaic to show.

    Returns:
        The network input, not yet mirrored and of its own colors, in bytes.
    """
    layout = MosaicLayout.of([sample.image.shape[:2] for sample in samples], resize_rule, view)
    boxes = np.concatenate([layout.move_boxes(index, sample.boxes) for index, sample in enumerate(samples)])
    stage = _Stage.of(layout)
    mosaic = TrainingSample(
        image=stage.show_images([sample.image for sample in samples], resize_rule),
        boxes=boxes.astype(np.float32),
        labels=np.concatenate([sample.labels for sample in samples]),
        masks=_MosaicMasks.of(samples, stage),
    )
    return keep_visible(mosaic, SMALLEST_SIDE)


@dataclass(frozen=True)
class MosaicLayout:
    """Positions of the images in a mosaic, and of the mosaic in the network input.

    Args:
        shapes: (height, width) of each image.
        tiles: (width, height) of each, resized.
        offsets: left and top edge of each.
        size: (width, height) of the mosaic.
        input_size: (height, width) of the network input.
        scale: pixels of the network input for one of the mosaic, across and down, before it is turned.
        to_input: the matrix that maps (x, y, 1) of the mosaic to x and y of the network input.
    """

    shapes: list[tuple[int, ...]]
    tiles: Float64[np.ndarray, "n 2"]
    offsets: Float64[np.ndarray, "n 2"]
    size: Float64[np.ndarray, " 2"]
    input_size: tuple[int, int]
    scale: Float64[np.ndarray, " 2"]
    to_input: Float64[np.ndarray, "2 3"]

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, ...]], resize_rule: ResizeRule, view: View) -> MosaicLayout:
        """Place four images of such (height, width)."""
        side = max(1, resize_rule.image_size // 2)
        tiles = np.array([[int(side * length / min(shape)) for length in shape[::-1]] for shape in shapes], np.float64)
        cell = tiles.max(0)
        offsets, size = cell * np.array([[0, 0], [1, 0], [0, 1], [1, 1]]), 2 * cell
        input_size = resize_rule.input_size(int(size[1]), int(size[0]))
        stretch = np.array(input_size[::-1]) / size
        to_input = _map_to_input(size, stretch, view)
        return cls(list(shapes), tiles, offsets, size, input_size, view.zoom * stretch, to_input)

    def move_boxes(self, index: int, boxes: Float32[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
        """Return the boxes around the corners of an image's boxes in the network input; they may lie outside."""
        scale = self.tiles[index] / self.shapes[index][::-1]
        corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] * scale + self.offsets[index]
        moved = corners @ self.to_input[:, :2].T + self.to_input[:, 2]
        around: Float64[np.ndarray, "n 4"] = np.concatenate((moved.min(1), moved.max(1)), axis=1)
        return around


def _map_to_input(
    size: Float64[np.ndarray, " 2"], stretch: Float64[np.ndarray, " 2"], view: View
) -> Float64[np.ndarray, "2 3"]:
    """Turn, zoom and shift a mosaic of (width, height) around its center, then stretch it to the network input."""
    cos, sin = math.cos(math.radians(view.angle)), math.sin(math.radians(view.angle))
    turn = view.zoom * np.array([[cos, -sin], [sin, cos]])
    center = size / 2
    move = center + np.array(view.shift) * size - turn @ center
    mapping: Float64[np.ndarray, "2 3"] = stretch[:, None] * np.concatenate((turn, move[:, None]), axis=1)
    return mapping


@dataclass(frozen=True)
class _Stage:
    """The images side by side at the size they are shown at, and the map from there to the network input.

    Args:
        crops: of each image, to its size.
        corners: (left, top) of each, in whole pixels.
        size: (width, height) of all together.
        input_size: (height, width) of the network input.
        from_input: the matrix that maps (x, y, 1) of the input back.
    """

    crops: list[Crop]
    corners: list[tuple[int, int]]
    size: tuple[int, int]
    input_size: tuple[int, int]
    from_input: Float64[np.ndarray, "2 3"]

    @classmethod
    def of(cls, layout: MosaicLayout) -> _Stage:
        scale, to_input = layout.scale, layout.to_input
        first = np.rint(layout.offsets * scale).astype(int)
        last = np.maximum(np.rint((layout.offsets + layout.tiles) * scale).astype(int), first + 1)
        windows = [Window.whole(height, width) for height, width in layout.shapes]
        sides = (last - first)[:, ::-1].tolist()
        width, height = last.max(0).tolist()
        back = np.linalg.inv(to_input[:, :2] / scale)
        from_input = np.concatenate((back, -back @ to_input[:, 2:]), axis=1)
        return cls(
            [Crop(window, (rows, columns)) for window, (rows, columns) in zip(windows, sides, strict=True)],
            [(left, top) for left, top in first.tolist()],
            (width, height),
            layout.input_size,
            from_input,
        )

    def show_images(
        self, images: Sequence[UInt8[np.ndarray, "_h _w 3"]], resize_rule: ResizeRule
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Return the network input; the rule's fill where there is no image."""
        width, height = self.size
        pixels = np.tile(np.array(resize_rule.fill, np.uint8), (height, width, 1))
        resampling = resize_rule.resampling._replace(floats=False)
        for image, crop, corner in zip(images, self.crops, self.corners, strict=True):
            pixels[_area(corner, crop)] = crop.render(image, resampling).permute(1, 2, 0).numpy()
        return _turn(pixels, self.from_input, self.input_size, Image.Resampling.BILINEAR, resize_rule.fill)

    def show_mask(self, index: int, mask: Bool[np.ndarray, "_h _w"]) -> Bool[np.ndarray, "h w"]:
        """Return the mask of an object of one image, which is of that image's crop, in the network input."""
        shown = np.zeros(self.input_size, bool)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return shown
        # Only the part of the mask that is not empty is turned: most objects are small.
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        corner = np.array([columns[0], rows[0]]) + self.corners[index]
        back, move = self.from_input[:, :2], self.from_input[:, 2]
        points = corner + np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * part.shape[::-1]
        around = np.linalg.solve(back, (points - move).T).T
        low, high = np.floor(around.min(0)).astype(int), np.ceil(around.max(0)).astype(int)
        left, top = low.clip(0).tolist()
        right, bottom = np.minimum(high, self.input_size[::-1]).tolist()
        if left < right and top < bottom:
            matrix = np.column_stack((back, move + back @ (left, top) - corner))
            turned = _turn(part.astype(np.uint8), matrix, (bottom - top, right - left), Image.Resampling.NEAREST, 0)
            shown[top:bottom, left:right] = turned > 0
        return shown


def _turn(
    pixels: UInt8[np.ndarray, "_h _w *c"],
    back: Float64[np.ndarray, "2 3"],
    size: tuple[int, int],
    resampling: Image.Resampling,
    fill: int | tuple[int, int, int],
) -> UInt8[np.ndarray, "h w *c"]:
    """Return an image of (height, width) whose points come from where ``back`` maps their (x, y, 1)."""
    matrix, (height, width) = tuple(back.ravel().tolist()), size
    image = Image.fromarray(pixels).transform(
        (width, height), Image.Transform.AFFINE, matrix, resampling, fillcolor=fill
    )
    turned: UInt8[np.ndarray, "h w *c"] = np.asarray(image)
    return turned


def _area(corner: tuple[int, int], crop: Crop) -> tuple[slice, slice]:
    (left, top), (height, width) = corner, crop.input_size
    return slice(top, top + height), slice(left, left + width)


@dataclass(frozen=True, eq=False)
class _MosaicMasks:
    """Masks of the objects of a mosaic.

    Args:
        tiles: masks of each image.
        objects: the image of each object, and its index there.
        stage: the way to the network input.
    """

    tiles: tuple[ObjectMasks, ...]
    objects: tuple[tuple[int, int], ...]
    stage: _Stage

    @classmethod
    def of(cls, samples: Sequence[TrainingSample], stage: _Stage) -> _MosaicMasks | None:
        """Collect the masks of all images; None where one has none."""
        tiles = tuple(sample.masks for sample in samples if sample.masks is not None)
        if len(tiles) < len(samples):
            return None
        objects = ((tile, index) for tile, sample in enumerate(samples) for index in range(len(sample.labels)))
        return cls(tiles, tuple(objects), stage)

    def select(self, indices: Sequence[int]) -> _MosaicMasks:
        """Return the masks of some of the objects."""
        return replace(self, objects=tuple(self.objects[index] for index in indices))

    def render(self, crop: Crop) -> Bool[Tensor, "n height width"]:
        """Return the masks in pixels of a network input that shows a crop of the mosaic's."""
        pixels = np.zeros((len(self.objects), *self.stage.input_size), bool)
        for tile, masks in enumerate(self.tiles):
            rows = [row for row, (own, _) in enumerate(self.objects) if own == tile]
            if rows:
                rendered = masks.select([self.objects[row][1] for row in rows]).render(self.stage.crops[tile])
                pixels[rows] = [self.stage.show_mask(tile, mask) for mask in rendered.numpy()]
        return render_mask_arrays(pixels, crop)
