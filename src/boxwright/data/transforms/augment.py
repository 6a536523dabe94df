"""Random changes of a training image and its boxes.

Geometry is never applied step by step: zooming out, cropping and mirroring compose into one ``Crop``, the
part of the image that becomes the network input, and the image is resampled once. The black border of a
zoomed-out image is never drawn at full size, and no pixel is interpolated twice. RandAugment alone, which
is not for detection, changes the finished input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from boxwright.data.crop import Crop, CropRegion
from boxwright.data.images import to_bytes
from boxwright.data.transforms.copy_blend import copy_blend, draw_pastes
from boxwright.data.transforms.large_scale_jitter import check_scales, large_scale_jitter
from boxwright.data.transforms.mixing import MixingOptions
from boxwright.data.transforms.mixup import OPACITY, mixup
from boxwright.data.transforms.mosaic import TILES, MosaicLayout, draw_view, make_mosaic
from boxwright.data.transforms.photometric import change_colors, draw_color_map
from boxwright.data.transforms.rand_augment import check_operations, rand_augment_image
from boxwright.data.transforms.random_iou_crop import random_iou_crop
from boxwright.data.transforms.random_resized_crop import check_area_range, random_resized_crop
from boxwright.data.transforms.random_size_crop import draw_scale, random_size_crop, scale_size
from boxwright.data.transforms.transform import (
    SMALLEST_SIDE,
    PixelMasks,
    TrainingSample,
    TransformContext,
    to_pixels,
)
from boxwright_runtime.input_format import ResizeRule, Window

OFF = (1.0, 1.0)
"""The range of scales, or fractions of the area, that changes nothing."""

MAX_ZOOM = 100

PROBABILITIES = (
    "mosaic",
    "mixup",
    "copy_blend",
    "photometric",
    "channel_shuffle",
    "zoom_out",
    "iou_crop",
    "flip",
    "vertical_flip",
    "size_crop",
)


class Augmented(NamedTuple):
    """An augmented network input.

    Args:
        image: RGB: bytes, or floats in [0, 255] where the resize rule keeps them.
        boxes: corners in pixels of the input.
        indices: of the boxes that are left, in the order of ``boxes``.
        crop: the part of the image that the input shows.
    """

    image: UInt8[Tensor, "3 height width"] | Float32[Tensor, "3 height width"]
    boxes: Float32[np.ndarray, "kept 4"]
    indices: Int64[np.ndarray, " kept"]
    crop: Crop


@dataclass(frozen=True, kw_only=True)
class Augmentation(MixingOptions):
    """Colors, zooming out, cropping around objects, mirroring; in this order, then resizing to the network input.

    The stages of training without strong augmentation, the last one and perhaps the first, mirror only.

    DETR's pipeline has neither colors, zooming out nor that crop (all 0), but ``scale_range`` [0.6, 1.0],
    ``size_crop`` 0.5 and ``flip`` 0.5. There every object stays that the crop leaves a part of.

    **Source**: RT-DETR's published training pipeline, which is SSD's (Liu et al., ECCV 2016, 2.2 and 3.6).
    Windows and remaining boxes follow the same distribution as torchvision.transforms.v2's RandomZoomOut and
    RandomIoUCrop. Differs in that images without objects are cropped too (there, only those with objects
    ever are): the whole image stands in as the object; in that boxes below one pixel are dropped by their
    size in the network input; and in the colors, see ``draw_color_map``. DETR's: facebookresearch/detr 29901c5
    (``make_coco_transforms``); see ``random_size_crop``. The last three options: see
    ``large_scale_jitter``, ``random_resized_crop`` and ``rand_augment_image``. Samples of several images: see
    ``make_mosaic``, ``mixup`` and ``copy_blend``.

    Args:
        mosaic: probability that four images become one, each at half its size, turned by up to 10 degrees, shifted and
            zoomed together; instead of every zoom, crop and jitter below. On in ``train.schedule.mixing_epochs``.
        mixup: probability that another image of the data set is laid over it, half transparent, with its objects. On in
            ``train.schedule.mixing_epochs``.
        copy_blend: probability that up to three objects of another image are laid over it, half transparent, where it
            is not mixed by ``mixup``. On as long as images are changed strongly.
        photometric: probability of each change of color: brightness, contrast, saturation, hue.
        channel_shuffle: probability that red, green and blue are permuted.
        zoom_out: probability that the image becomes a part of a larger black one.
        zoom_out_max: largest side of that larger image, as a multiple of the image's.
        iou_crop: probability of a crop that overlaps some object by a random least IoU.
        flip: probability of mirroring left and right.
        vertical_flip: probability of mirroring top and bottom.
        scale_range: least and largest shortest side of an input, as multiples of the image size; each image
            draws one of those in steps of 0.04 between them.
        size_crop: probability of a crop of random size and position, whatever it shows, instead of zooming out and
            ``iou_crop``.
        scale_jitter: least and largest size of an image, as multiples of the size that evaluation shows it at, in a
            square input whose side is the image size; black where the image ends. Where it is not (1, 1), it
            replaces zooming out, ``iou_crop``, ``size_crop`` and ``scale_range``, and every object stays that a
            part is left of. Whole images fit at 1 where ``max_size`` is the image size, as in the published recipes.
        resized_crop: least and largest fraction of an image's area that is shown, in a part 3/4 to 4/3 as wide as
            high. Where it is not (1, 1), it replaces zooming out, ``iou_crop`` and ``size_crop``, and every
            object stays that a part is left of.
        rand_augment: number of RandAugment's operations, and their magnitude, 0 to 30; for classification only: after
            everything else, it shears, shifts and turns the input, and neither its boxes nor its masks.

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
        if not 1 <= self.zoom_out_max <= MAX_ZOOM:
            allowed = f"at least 1, the image's own size, and at most {MAX_ZOOM}"
            raise ValueError(f"zoom_out_max must be {allowed}; got {self.zoom_out_max}")
        check_scales("scale_range", self.scale_range)
        check_scales("scale_jitter", self.scale_jitter)
        check_area_range("resized_crop", self.resized_crop)
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

    def __call__(self, sample: TrainingSample, context: TransformContext) -> TrainingSample:
        """Return the network input of a sample; see ``Transform``."""
        if not context.is_strong or self.most_images == 1:
            return self._augment(sample, context)
        # Numbers of its own: whether images are mixed does not change how each of them is cropped.
        rng = context.rng.spawn(1)[0]
        own = self._augment_or_tile(sample, context, rng)
        if context.is_mixed and rng.random() < self.mixup:
            other = self._augment_or_tile(context.draw_sample(), context, rng)
            return mixup(own, other, context.resize_rule.fill, rng.uniform(*OPACITY))
        if rng.random() < self.copy_blend:
            other = self._augment_or_tile(context.draw_sample(), context, rng)
            return copy_blend(own, other, draw_pastes(own, other, rng), rng.uniform(*OPACITY))
        return own

    def _augment_or_tile(
        self, sample: TrainingSample, context: TransformContext, rng: np.random.Generator
    ) -> TrainingSample:
        """Return the network input of one image, or of a mosaic that it is the first of."""
        if not context.is_mixed or rng.random() >= self.mosaic:
            return self._augment(sample, context)
        samples = [sample, *(context.draw_sample() for _ in range(TILES - 1))]
        rule = self._scale_rule(context.resize_rule, rng)
        tiled = make_mosaic(samples, rule, draw_view(rng))
        height, width = tiled.image.shape[:2]
        crop = self._draw_flips(Window.whole(height, width), (height, width), context.rng)
        everything = np.arange(len(tiled.boxes))
        return _show(tiled, self._render(tiled.image, tiled.boxes, crop, everything, context.resize_rule, context.rng))

    def _augment(self, sample: TrainingSample, context: TransformContext) -> TrainingSample:
        """Return the network input of one image."""
        shown = self.augment_image(
            sample.image, sample.boxes, context.resize_rule, context.rng, is_strong=context.is_strong
        )
        return _show(sample, shown)

    def augment_image(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        resize_rule: ResizeRule,
        rng: np.random.Generator,
        *,
        is_strong: bool = True,
    ) -> Augmented:
        """Draw one network input of an image.

        Args:
            image: RGB.
            boxes: corner boxes in pixels of the image.
            resize_rule: size of the network input in this step.
            rng: the only source of chance.
            is_strong: False to mirror only, as in the last stage of training.
        """
        crop, kept = self.draw_crop(image.shape[0], image.shape[1], boxes, resize_rule, rng, is_strong=is_strong)
        return self._render(image, boxes, crop, kept, resize_rule, rng, is_strong=is_strong)

    def _render(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        boxes: Float32[np.ndarray, "n 4"],
        crop: Crop,
        kept: Int64[np.ndarray, " kept"],
        resize_rule: ResizeRule,
        rng: np.random.Generator,
        *,
        is_strong: bool = True,
    ) -> Augmented:
        """Show a crop of an image, with random colors where they are on, and drop boxes that become too small."""
        pixels = crop.render(image, resize_rule.resampling, resize_rule.fill)
        if is_strong and (self.photometric or self.channel_shuffle):
            # The mean of a coarse grid will do, and costs a hundredth of the mean of all pixels.
            mean = image[::8, ::8].mean((0, 1), dtype=np.float64)
            color_map = draw_color_map(rng, self.photometric, self.channel_shuffle, mean)
            rows, columns = crop.visible_area(image.shape[0], image.shape[1])
            pixels[:, rows, columns] = change_colors(pixels[:, rows, columns], color_map)
        if is_strong and self.rand_augment[0]:
            pixels = rand_augment_image(to_bytes(pixels), *self.rand_augment, rng)
        moved = crop.boxes(boxes[kept])
        large_enough = (moved[:, 2:] - moved[:, :2]).min(1, initial=np.inf) >= SMALLEST_SIDE
        return Augmented(pixels, moved[large_enough], kept[large_enough], crop)

    def draw_crop(
        self,
        height: int,
        width: int,
        boxes: Float32[np.ndarray, "n 4"],
        resize_rule: ResizeRule,
        rng: np.random.Generator,
        *,
        is_strong: bool = True,
    ) -> tuple[Crop, Int64[np.ndarray, " kept"]]:
        """Draw the part of an image of this size that the input shows, and the indices of the objects in it."""
        inside = np.ones(len(boxes), dtype=bool)
        if not is_strong:
            window, input_size = resize_rule.window(height, width), resize_rule.input_size(height, width)
        elif self.scale_jitter != OFF:
            window, input_size = large_scale_jitter(height, width, resize_rule, self.scale_jitter, rng)
        else:
            region, inside = self._draw_region(height, width, boxes, resize_rule, rng)
            resize_rule = self._scale_rule(resize_rule, rng)
            window, input_size = region.window, resize_rule.input_size(region.height, region.width)
        return self._draw_flips(window, input_size, rng), np.flatnonzero(inside)

    def draw_mosaic(
        self,
        record_shape: tuple[int, int],
        draw_shape: Callable[[], tuple[int, int]],
        resize_rule: ResizeRule,
        rng: np.random.Generator,
    ) -> MosaicLayout | None:
        """Draw the mosaic that training would show an image in, without any image; None where it would be by itself.

        Args:
            record_shape: (height, width) of the image.
            draw_shape: returns those of another image, at random.
            resize_rule: size of the network input in this step.
            rng: of the sample, before anything else is drawn.
        """
        rng = rng.spawn(1)[0]
        if rng.random() >= self.mosaic:
            return None
        shapes = [record_shape, *(draw_shape() for _ in range(TILES - 1))]
        return MosaicLayout.of(shapes, self._scale_rule(resize_rule, rng), draw_view(rng))

    def _scale_rule(self, resize_rule: ResizeRule, rng: np.random.Generator) -> ResizeRule:
        scale = draw_scale(self.scale_range, rng)
        return resize_rule._replace(image_size=scale_size(resize_rule.image_size, scale))

    def _draw_flips(self, window: Window, input_size: tuple[int, int], rng: np.random.Generator) -> Crop:
        return Crop(window, input_size, bool(rng.random() < self.flip), bool(rng.random() < self.vertical_flip))

    def _draw_region(
        self,
        height: int,
        width: int,
        boxes: Float32[np.ndarray, "n 4"],
        resize_rule: ResizeRule,
        rng: np.random.Generator,
    ) -> tuple[CropRegion, Bool[np.ndarray, " n"]]:
        window, inside = resize_rule.window(height, width), np.ones(len(boxes), dtype=bool)
        if self.resized_crop != OFF:
            return random_resized_crop(height, width, self.resized_crop, rng), inside
        if self.size_crop and rng.random() < self.size_crop:
            return random_size_crop(height, width, resize_rule, rng), inside
        if rng.random() < self.zoom_out:
            window = zoom_out_window(window, self.zoom_out_max, rng)
        if rng.random() < self.iou_crop:
            window, inside = random_iou_crop(window, height, width, boxes, rng)
        return CropRegion(window, round(window.y2 - window.y1), round(window.x2 - window.x1)), inside


def _show(sample: TrainingSample, shown: Augmented) -> TrainingSample:
    """Return the objects of a sample, with their masks, in its augmented network input."""
    rows = shown.indices.tolist()
    masks = None if sample.masks is None else PixelMasks(sample.masks.select(rows).render(shown.crop).numpy())
    return TrainingSample(image=to_pixels(shown.image), boxes=shown.boxes, labels=sample.labels[rows], masks=masks)


def zoom_out_window(shown: Window, largest: float, rng: np.random.Generator) -> Window:
    """Draw a window 1 to ``largest`` times as large as the one shown, around it at a random position."""
    x1, y1, x2, y2 = shown
    height, width = y2 - y1, x2 - x1
    factor = rng.uniform(1.0, largest)
    larger_height, larger_width = int(height * factor), int(width * factor)
    left = x1 - int((larger_width - width) * rng.random())
    top = y1 - int((larger_height - height) * rng.random())
    return Window(left, top, left + larger_width, top + larger_height)
