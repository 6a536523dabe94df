"""Mixup: two images over each other, with the objects of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from boxwright.data.transforms.transform import SMALLEST_SIDE, PixelMasks, TrainingSample, keep_visible

OPACITY = (0.45, 0.55)
"""Least and largest weight of an image in the mean of two."""

Pixels = UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]


def mixup(sample: TrainingSample, other: TrainingSample, fill: tuple[int, int, int], opacity: float) -> TrainingSample:
    """Return the weighted mean of two network inputs, with the objects of the first, then those of the second.

    The input keeps the first one's size: a larger second one is cut at the bottom and on the right, as are its boxes
    and masks, and a smaller one is filled up.

    **Source**: Zhang et al., "mixup", ICLR 2018, for detectors Zhang et al., "Bag of Freebies", 2019; as in DEIM (Huang
    et al., CVPR 2025), ShihuaHuang95/DEIM a9aa4ad (``apply_mixup``): the same pixels, but rounded to bytes, boxes and
    labels of a pair. Differs in the pairs: there all images of a process's batch are mixed, or none, each with the one
    before it; here each with its own probability, with another image of the data set, so that a sample does not depend
    on the images beside it. It costs the time to read and to change that other image.

    Args:
        sample: a network input.
        other: another one, of any size.
        fill: RGB where the other has no pixel.
        opacity: weight of the first image; 1 less that is the weight of the second.
    """
    other = fit_sample(other, sample.image.shape[:2], fill)
    masks = None
    if sample.masks is not None:
        masks = PixelMasks(np.concatenate([_pixels(sample), _pixels(other)]))
    return TrainingSample(
        image=blend(sample.image, other.image, opacity),
        boxes=np.concatenate([sample.boxes, other.boxes]),
        labels=np.concatenate([sample.labels, other.labels]),
        masks=masks,
    )


def blend(pixels: Pixels, others: Pixels, opacity: float) -> Pixels:
    """Return ``opacity * pixels + (1 - opacity) * others``; bytes are rounded."""
    mean = np.float32(opacity) * pixels + np.float32(1 - opacity) * others
    blended: Pixels = (mean + np.float32(0.5)).astype(np.uint8) if pixels.dtype == np.uint8 else mean
    return blended


def fit_sample(sample: TrainingSample, size: tuple[int, ...], fill: tuple[int, int, int]) -> TrainingSample:
    """Cut a sample, or fill it up, at the bottom and on the right; drop objects of which nearly nothing is left.

    Args:
        sample: with masks in pixels, if any.
        size: (height, width) of the result.
        fill: RGB of the rest.
    """
    if sample.image.shape[:2] == size:
        return sample
    height, width = size
    rows, columns = (min(own, side) for own, side in zip(sample.image.shape[:2], size, strict=True))
    image = np.tile(np.array(fill, sample.image.dtype), (height, width, 1))
    image[:rows, :columns] = sample.image[:rows, :columns]
    masks = None
    if sample.masks is not None:
        whole = np.zeros((len(sample.labels), height, width), bool)
        whole[:, :rows, :columns] = _pixels(sample)[:, :rows, :columns]
        masks = PixelMasks(whole)
    return keep_visible(replace(sample, image=image, masks=masks), SMALLEST_SIDE)


def _pixels(sample: TrainingSample) -> Bool[np.ndarray, "n h w"]:
    pixels = sample.mask_pixels()
    assert pixels is not None
    return pixels
