"""Mixup: pixels of the authors of DEIM, and the objects of both images."""

from __future__ import annotations

import numpy as np
import pytest

from boxwright.data.transforms.mixup import fit_sample, mixup
from boxwright.data.transforms.transform import PixelMasks, TrainingSample


def sample(image: np.ndarray, boxes: list[list[float]], labels: list[int]) -> TrainingSample:
    """Masks fill the boxes."""
    masks = np.zeros((len(boxes), *image.shape[:2]), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, np.array(boxes, int).reshape(-1, 4), strict=True):
        mask[y1:y2, x1:x2] = True
    return TrainingSample(
        image=image,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        masks=PixelMasks(masks),
    )


def test_pixels_of_the_authors() -> None:
    """Measured with apply_mixup of ShihuaHuang95/DEIM a9aa4ad, as fractions of 255 there."""
    first, second = np.random.default_rng(1).integers(0, 256, (2, 2, 2, 3), dtype=np.uint8)
    expected = [220.12, 187.99, 58.11, 183.59, 223.51, 104.35, 123.99, 67.9, 175.87, 165.95, 158.44, 112.46]
    mixed = mixup(sample(first, [], []), sample(second, [], []), (0, 0, 0), 0.486996)
    assert mixed.image.ravel().tolist() == np.rint(expected).tolist()
    floats = mixup(sample(first.astype(np.float32), [], []), sample(second, [], []), (0, 0, 0), 0.486996)
    assert floats.image.dtype == np.float32
    np.testing.assert_allclose(floats.image.ravel(), expected, atol=0.01)


def test_objects_of_both_in_their_order() -> None:
    own = sample(np.full((20, 30, 3), 200, np.uint8), [[1, 2, 11, 12]], [4])
    other = sample(np.full((20, 30, 3), 100, np.uint8), [[3, 4, 25, 18], [0, 0, 5, 5]], [2, 7])
    mixed = mixup(own, other, (0, 0, 0), 0.45)
    assert (mixed.image == 145).all()
    assert mixed.boxes.tolist() == [[1, 2, 11, 12], [3, 4, 25, 18], [0, 0, 5, 5]]
    assert mixed.labels.tolist() == [4, 2, 7]
    masks = mixed.mask_pixels()
    assert masks is not None
    assert masks.sum((1, 2)).tolist() == [100, 22 * 14, 25]
    assert own.image.max() == 200


@pytest.mark.parametrize("size", [(20, 30), (12, 40), (40, 12), (10, 10)])
def test_another_size_is_cut_and_filled_up(size: tuple[int, int]) -> None:
    """At the bottom and on the right; objects outside are dropped with their masks."""
    other = sample(np.full((20, 30, 3), 90, np.uint8), [[0, 0, 8, 8], [5, 5, 28, 19], [25, 1, 29, 4]], [1, 2, 3])
    fitted = fit_sample(other, size, (1, 2, 3))
    height, width = size
    assert fitted.image.shape == (*size, 3)
    assert (fitted.image[:20, :30] == 90).all()
    assert (fitted.image[20:] == (1, 2, 3)).all()
    assert (fitted.image[:, 30:] == (1, 2, 3)).all()
    kept = [1, 2, 3] if width > 25 else [1, 2]
    assert fitted.labels.tolist() == kept
    assert fitted.boxes[1].tolist() == [5, 5, min(28, width), min(19, height)]
    masks = fitted.mask_pixels()
    assert masks is not None
    assert masks.shape == (len(kept), *size)
    assert masks[1].sum() == (min(28, width) - 5) * (min(19, height) - 5)


def test_without_masks_there_are_none() -> None:
    plain = TrainingSample(
        image=np.zeros((8, 8, 3), np.uint8), boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, int)
    )
    assert mixup(plain, plain, (0, 0, 0), 0.5).masks is None
