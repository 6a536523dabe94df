"""Random changes of a training image and its boxes.

Geometry is never applied step by step: zooming out, cropping and mirroring compose into one ``View``, the
part of the image that becomes the canvas, and the image is resampled once. The black border of a
zoomed-out image is never drawn at full size, and no pixel is interpolated twice. RandAugment alone, which
is not for detection, changes the finished canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor

from boxwright.data.images import resample
from boxwright.data.input_format import ResizeRule, Window
from boxwright.data.transforms.photometric import change_colors, draw_color_map
from boxwright.data.transforms.rand_augment import check_operations, rand_augment_image
from boxwright.data.transforms.resized_crop import check_shares, random_resized_crop
from boxwright.data.transforms.scale_jitter import check_scales, jitter_scale
from boxwright.data.transforms.size_crop import Part, draw_scale, random_size_crop, scaled

OFF = (1.0, 1.0)
"""The range of scales, or shares of the area, that changes nothing."""

PROBABILITIES = (
    "photometric",
    "channel_shuffle",
    "zoom_out",
    "iou_crop",
    "flip",
    "vertical_flip",
    "size_crop",
)

CROP_OPTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Overlaps that a crop is asked to have with some object; 1 leaves the image whole."""

CROP_SCALE = (0.3, 1.0)
CROP_ASPECT = (0.5, 2.0)
CROP_TRIALS = 40
SMALLEST_SIDE = 1.0
"""Boxes with a side below this, in pixels of the canvas, are dropped."""


class View(NamedTuple):
    """What a canvas shows of an image: a window of it, perhaps mirrored. ``canvas`` is (height, width)."""

    window: Window
    canvas: tuple[int, int]
    flip_x: bool = False
    flip_y: bool = False

    def render(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[Tensor, "3 {self.canvas[0]} {self.canvas[1]}"]:
        """The canvas; black where the window lies outside the image."""
        canvas = resample(image, self.window, *self.canvas)
        axes = [axis for axis, flipped in ((1, self.flip_y), (2, self.flip_x)) if flipped]
        return canvas.flip(axes) if axes else canvas

    def boxes(self, boxes: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
        """Corner boxes in pixels of the image, as corner boxes in pixels of the canvas, clipped to it."""
        x1, y1, x2, y2 = self.window
        height, width = self.canvas
        size = np.array([width, height] * 2)
        moved = ((boxes - np.array([x1, y1] * 2)) * (size / np.array([x2 - x1, y2 - y1] * 2))).clip(0, size)
        if self.flip_x:
            moved[:, [0, 2]] = width - moved[:, [2, 0]]
        if self.flip_y:
            moved[:, [1, 3]] = height - moved[:, [3, 1]]
        clipped: Float32[np.ndarray, "n 4"] = moved.astype(np.float32)
        return clipped

    def content(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the canvas that show an image of this size, rounded as ``resample`` rounds them."""
        x1, y1, x2, y2 = self.window
        return (
            _visible_span(y1, y2, height, self.canvas[0], flipped=self.flip_y),
            _visible_span(x1, x2, width, self.canvas[1], flipped=self.flip_x),
        )


class Augmented(NamedTuple):
    """A training canvas.

    ``kept`` are the rows of the given boxes that ``boxes`` still has, in its order; ``view`` is what the canvas shows.
    """

    image: UInt8[Tensor, "3 height width"]
    boxes: Float32[np.ndarray, "kept 4"]
    kept: Int64[np.ndarray, " kept"]
    view: View


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Colors, zooming out, cropping around objects, mirroring; in this order, then resized.

    The last stage of training mirrors only.

    DETR's pipeline has neither colors, zooming out nor that crop (all 0), but ``scale_range`` [0.6, 1.0],
    ``size_crop`` 0.5 and ``flip`` 0.5. There every object stays that the crop leaves a part of.

    **Source**: RT-DETR's published training pipeline, which is SSD's (Liu et al., ECCV 2016, 2.2 and 3.6).
    Windows and kept boxes follow the same distribution as torchvision.transforms.v2's RandomZoomOut and
    RandomIoUCrop. Differs in that images without objects are cropped too (there, only those with objects
    ever are): the whole image stands in as the object; in that boxes below one pixel are dropped by their
    size on the canvas; and in the colors, see ``draw_color_map``. DETR's: facebookresearch/detr 29901c5
    (``make_coco_transforms``); see ``random_size_crop``. The last three options: see ``jitter_scale``,
    ``random_resized_crop`` and ``rand_augment_image``.

    Args:
        photometric: probability of each change of color: brightness, contrast, saturation, hue.
        channel_shuffle: probability that red, green and blue change places.
        zoom_out: probability that the image is shrunk onto a larger black canvas.
        zoom_out_max: largest side of that canvas, as a multiple of the image's.
        iou_crop: probability of a crop that overlaps some object by a random least IoU.
        flip: probability that left and right change places.
        vertical_flip: probability that top and bottom change places.
        scale_range: least and largest shortest side of a canvas, as multiples of the image size; each image
            draws one of those in steps of 0.04 between them.
        size_crop: probability of a crop of random size and place, whatever it shows, instead of zooming out and
            ``iou_crop``.
        scale_jitter: least and largest size of an image, as multiples of the size that evaluation shows it at, on a
            square canvas whose side is the image size; black where the image ends. Where it is not (1, 1), it takes
            the place of zooming out, ``iou_crop``, ``size_crop`` and ``scale_range``, and every object stays that a
            part is left of. Whole images fit at 1 where ``max_size`` is the image size, as in the published recipes.
        resized_crop: least and largest share of an image's area that is shown, in a part 3/4 to 4/3 as wide as
            high. Where it is not (1, 1), it takes the place of zooming out, ``iou_crop`` and ``size_crop``, and every
            object stays that a part is left of.
        rand_augment: number of RandAugment's operations, and their magnitude, 0 to 30; for classification only: after
            everything else, it shears, shifts and turns the canvas, and neither its boxes nor its masks.

    Raises:
        ValueError: an option is out of range, or two of ``scale_jitter``, ``resized_crop``, ``size_crop`` are on.
    """

    photometric: float = 0.5
    channel_shuffle: float = 0.5
    zoom_out: float = 0.5
    zoom_out_max: float = 4.0
    iou_crop: float = 0.8
    flip: float = 0.5
    vertical_flip: float = 0.0
    scale_range: tuple[float, float] = (1.0, 1.0)
    size_crop: float = 0.0
    scale_jitter: tuple[float, float] = OFF
    resized_crop: tuple[float, float] = OFF
    rand_augment: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1; got {getattr(self, name)}")
        if not self.zoom_out_max >= 1:
            raise ValueError(f"zoom_out_max must be at least 1, the image's own size; got {self.zoom_out_max}")
        check_scales("scale_range", self.scale_range)
        check_scales("scale_jitter", self.scale_jitter)
        check_shares("resized_crop", self.resized_crop)
        check_operations("rand_augment", self.rand_augment)
        on = {
            "scale_jitter": self.scale_jitter != OFF,
            "resized_crop": self.resized_crop != OFF,
            "size_crop": self.size_crop > 0,
        }
        if sum(on.values()) > 1:
            raise ValueError(
                f"at most one of {', '.join(on)} can be on; got {' and '.join(name for name in on if on[name])}"
            )

    def __call__(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        resize_rule: ResizeRule,
        rng: np.random.Generator,
        *,
        light: bool = False,
    ) -> Augmented:
        """One random canvas of an image.

        Args:
            image: RGB.
            boxes: corner boxes in pixels of the image.
            resize_rule: how large canvases are in this step.
            rng: the only source of chance.
            light: mirror only, as in the last stage of training.
        """
        view, kept = self.draw_view(image.shape[0], image.shape[1], boxes, resize_rule, rng, light=light)
        canvas = view.render(image)
        if not light and (self.photometric or self.channel_shuffle):
            # The mean of a coarse grid will do, and costs a hundredth of the mean of all pixels.
            mean = image[::8, ::8].mean((0, 1), dtype=np.float64)
            color_map = draw_color_map(rng, self.photometric, self.channel_shuffle, mean)
            rows, columns = view.content(image.shape[0], image.shape[1])
            canvas[:, rows, columns] = change_colors(canvas[:, rows, columns], color_map)
        if not light and self.rand_augment[0]:
            canvas = rand_augment_image(canvas, *self.rand_augment, rng)
        moved = view.boxes(boxes[kept])
        large_enough = (moved[:, 2:] - moved[:, :2]).min(1, initial=np.inf) >= SMALLEST_SIDE
        return Augmented(canvas, moved[large_enough], kept[large_enough], view)

    def draw_view(
        self,
        height: int,
        width: int,
        boxes: Float32[np.ndarray, "n 4"],
        resize_rule: ResizeRule,
        rng: np.random.Generator,
        *,
        light: bool = False,
    ) -> tuple[View, Int64[np.ndarray, " kept"]]:
        """What to show of an image of this size, and which of its objects count as shown."""
        inside = np.ones(len(boxes), dtype=bool)
        if light:
            window, canvas = resize_rule.window(height, width), resize_rule.canvas(height, width)
        elif self.scale_jitter != OFF:
            window, canvas = jitter_scale(height, width, resize_rule, self.scale_jitter, rng)
        else:
            part, inside = self._draw_part(height, width, boxes, resize_rule, rng)
            resize_rule = resize_rule._replace(
                image_size=scaled(resize_rule.image_size, draw_scale(self.scale_range, rng))
            )
            window, canvas = part.window, resize_rule.canvas(part.height, part.width)
        view = View(window, canvas, bool(rng.random() < self.flip), bool(rng.random() < self.vertical_flip))
        return view, np.flatnonzero(inside)

    def _draw_part(
        self,
        height: int,
        width: int,
        boxes: Float32[np.ndarray, "n 4"],
        resize_rule: ResizeRule,
        rng: np.random.Generator,
    ) -> tuple[Part, Bool[np.ndarray, " n"]]:
        window, inside = resize_rule.window(height, width), np.ones(len(boxes), dtype=bool)
        if self.resized_crop != OFF:
            return random_resized_crop(height, width, self.resized_crop, rng), inside
        if self.size_crop and rng.random() < self.size_crop:
            return random_size_crop(height, width, resize_rule, rng), inside
        if rng.random() < self.zoom_out:
            window = zoom_out_window(window, self.zoom_out_max, rng)
        if rng.random() < self.iou_crop:
            window, inside = cropped(window, height, width, boxes, rng)
        return Part(window, round(window.y2 - window.y1), round(window.x2 - window.x1)), inside


def zoom_out_window(shown: Window, largest: float, rng: np.random.Generator) -> Window:
    """A window 1 to ``largest`` times as large as what is shown of an image, around it at a random place."""
    x1, y1, x2, y2 = shown
    height, width = y2 - y1, x2 - x1
    factor = rng.uniform(1.0, largest)
    canvas_height, canvas_width = int(height * factor), int(width * factor)
    left = x1 - int((canvas_width - width) * rng.random())
    top = y1 - int((canvas_height - height) * rng.random())
    return Window(left, top, left + canvas_width, top + canvas_height)


def cropped(
    window: Window, height: int, width: int, boxes: Float32[np.ndarray, "n 4"], rng: np.random.Generator
) -> tuple[Window, Bool[np.ndarray, " n"]]:
    """A random part of a window, and which boxes have their center in it.

    A least IoU is drawn; then up to forty parts of random size and place, until one has the center of some
    box inside and that least IoU with it; failing that, another least IoU. One of the choices is to crop
    nothing.

    Args:
        window: what may be shown of the image.
        height: of the image.
        width: likewise.
        boxes: corner boxes in pixels of the image; where there are none, the whole image serves as one.
        rng: the only source of chance.
    """
    objects = boxes if len(boxes) else np.array([[0, 0, width, height]], dtype=np.float32)
    while True:
        least = CROP_OPTIONS[rng.integers(len(CROP_OPTIONS))]
        if least >= 1:
            return window, np.ones(len(boxes), dtype=bool)
        parts = _draw_parts(window, rng)
        centered = _centers_within(objects, parts)
        best = np.where(centered, _pairwise_iou(parts, objects), -1.0).max(1)
        valid = np.flatnonzero((best >= least) & centered.any(1))
        if len(valid):
            part = parts[valid[0]]
            return Window(*part.tolist()), _centers_within(boxes, part[None])[0]


def _draw_parts(window: Window, rng: np.random.Generator) -> Float64[np.ndarray, "trials 4"]:
    """Candidate crops with whole-number sides, all trials at once, without those too narrow or too flat."""
    x1, y1, x2, y2 = window
    low, high = CROP_SCALE
    scales, places = rng.uniform(low, high, (CROP_TRIALS, 2)), rng.random((CROP_TRIALS, 2))
    sides = np.floor(np.array([x2 - x1, y2 - y1]) * scales)
    corners = np.array([x1, y1]) + np.floor((np.array([x2 - x1, y2 - y1]) - sides) * places)
    aspects = sides[:, 0] / np.maximum(sides[:, 1], 1)
    narrowest, widest = CROP_ASPECT
    fits = (aspects >= narrowest) & (aspects <= widest) & (sides >= 1).all(1)
    return np.concatenate((corners, corners + sides), axis=1)[fits]


def _centers_within(boxes: Float32[np.ndarray, "n 4"], parts: Float64[np.ndarray, "p 4"]) -> Bool[np.ndarray, "p n"]:
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside: Bool[np.ndarray, "p n"] = ((parts[:, None, :2] < centers) & (centers < parts[:, None, 2:])).all(-1)
    return inside


def _pairwise_iou(parts: Float64[np.ndarray, "p 4"], boxes: Float32[np.ndarray, "n 4"]) -> Float64[np.ndarray, "p n"]:
    """In numpy, unlike ``ops.boxes``: a worker spends its time here on calls, not on numbers."""
    low = np.maximum(parts[:, None, :2], boxes[:, :2])
    high = np.minimum(parts[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clip(0, None).prod(-1)
    union = (parts[:, 2:] - parts[:, :2]).prod(-1)[:, None] + (boxes[:, 2:] - boxes[:, :2]).prod(-1) - shared
    ratio: Float64[np.ndarray, "p n"] = shared / union
    return ratio


def _visible_span(start: float, stop: float, length: int, size: int, *, flipped: bool) -> slice:
    scale = size / (stop - start)
    first = max(0, int((max(start, 0) - start) * scale + 0.5))
    last = min(size, int((min(stop, length) - start) * scale + 0.5))
    return slice(size - last, size - first) if flipped else slice(first, last)
