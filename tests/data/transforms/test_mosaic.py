"""Mosaics: boxes of the authors of DEIM, and objects that stay with their pixels and masks."""

from __future__ import annotations

import numpy as np
import pytest

from boxwright.data.transforms.mosaic import View, draw_view, make_mosaic
from boxwright.data.transforms.transform import PixelMasks, TrainingSample
from boxwright_runtime.input_format import Resampling, ResizeRule

SHAPES = [(120, 160), (200, 90), (77, 131), (160, 160)]
BOXES = [[20, 30, 90, 100], [10, 20, 60, 180], [40.5, 10, 120, 70.25], [100, 90, 150, 155]]
COLORS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 0, 250)]
WHOLE = View(0.0, (0.0, 0.0), 1.0)


def samples() -> list[TrainingSample]:
    """Gray images, each with an object of its own color and class."""
    made = []
    for label, (shape, box, color) in enumerate(zip(SHAPES, BOXES, COLORS, strict=True)):
        image = np.full((*shape, 3), 90, np.uint8)
        x1, y1, x2, y2 = np.rint(box).astype(int)
        image[y1:y2, x1:x2] = color
        mask = (image == np.array(color)).all(-1)[None]
        made.append(
            TrainingSample(
                image=image, boxes=np.array([box], np.float32), labels=np.array([label]), masks=PixelMasks(mask)
            )
        )
    return made


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize(
    ("size", "view", "labels", "boxes"),
    [
        (
            64,
            View(7.5, (5 / 108, -4 / 142), 0.8),
            [0, 1, 2, 3],
            [
                [14.793, 5.382, 24.585, 12.919],
                [37.073, 7.522, 48.944, 28.663],
                [15.622, 29.927, 32.575, 40.42],
                [42.445, 37.573, 47.95, 42.691],
            ],
        ),
        (
            96,
            View(-10.0, (-3 / 162, 8 / 212), 1.5),
            [1, 2, 3],
            [[36.166, 0.0, 72.598, 43.903], [0.0, 56.595, 47.028, 87.517], [76.651, 64.376, 92.792, 79.189]],
        ),
        (
            128,
            View(3.25, (0.0, 0.0), 0.5),
            [0, 1, 2, 3],
            [
                [36.684, 34.407, 48.312, 43.282],
                [66.342, 35.337, 78.768, 61.35],
                [40.948, 64.917, 61.178, 77.021],
                [74.791, 72.611, 81.144, 78.716],
            ],
        ),
    ],
    ids=["smaller", "larger", "half"],
)
def test_boxes_of_the_authors(size: int, view: View, labels: list[int], boxes: list[list[float]]) -> None:
    """Measured with Mosaic, RandomAffine, Resize and SanitizeBoundingBoxes of ShihuaHuang95/DEIM a9aa4ad."""
    mosaic = make_mosaic(samples(), ResizeRule(size), view)
    assert mosaic.labels.tolist() == labels
    assert mosaic.image.shape == (size, size, 3)
    np.testing.assert_allclose(mosaic.boxes, boxes, atol=1e-3)


def test_images_that_are_not_turned_are_side_by_side() -> None:
    """Without any turn, each image is exactly resized, in the top left corner of its cell; the rest is black."""
    images = [np.full((32, 32, 3), 40 * (i + 1), np.uint8) for i in range(4)]
    made = [
        TrainingSample(image=image, boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64))
        for image in images
    ]
    pixels = make_mosaic(made, ResizeRule(64), WHOLE).image
    assert (pixels.reshape(2, 32, 2, 32, 3) == np.array([[40, 80], [120, 160]])[:, None, :, None, None]).all()
    lower = make_mosaic([*made[:3], samples()[0]], ResizeRule(64), View(0.0, (0.25, 0.0), 1.0)).image
    assert not lower[:, :16].any()
    assert (lower[:31, 17:36] == 40).all()


def test_boxes_and_masks_follow_pixels() -> None:
    """For 200 views: a color's pixels are its object's mask, and lie in its box, close where nothing turns."""
    seen = set()
    for seed in range(200):
        view = draw_view(np.random.default_rng(seed))
        mosaic = make_mosaic(samples(), ResizeRule(96), view)
        masks = mosaic.mask_pixels()
        assert masks is not None
        assert masks.shape == (len(mosaic.labels), 96, 96)
        for label, box, mask in zip(mosaic.labels, mosaic.boxes, masks, strict=True):
            colored = (np.abs(mosaic.image.astype(int) - COLORS[label]) < 40).all(-1)
            if colored.sum() < 60:
                continue
            assert (mask & colored).sum() > 0.93 * colored.sum()
            assert mask.sum() < 1.4 * colored.sum() + 20
            low, high = np.split(box_of(mask) - box, 2)
            assert (low >= -1.5).all()
            assert (high <= 1.5).all()
            seen.add((int(label), len(mosaic.labels)))
    assert {label for label, _ in seen} == {0, 1, 2, 3}
    assert {count for _, count in seen} == {3, 4}


def test_an_untouched_box_is_tight() -> None:
    mosaic = make_mosaic(samples(), ResizeRule(128), WHOLE)
    masks = mosaic.mask_pixels()
    assert masks is not None
    for mask, box in zip(masks, mosaic.boxes, strict=True):
        np.testing.assert_allclose(box_of(mask), box, atol=1.0)


def test_views_are_drawn_evenly() -> None:
    views = [draw_view(np.random.default_rng(seed)) for seed in range(2000)]
    for values, least, largest in (
        ([view.angle for view in views], -10, 10),
        ([view.zoom for view in views], 0.5, 1.5),
        ([view.shift[0] for view in views], -0.1, 0.1),
        ([view.shift[1] for view in views], -0.1, 0.1),
    ):
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        span = largest - least
        np.testing.assert_allclose([low, middle, high], [least, (least + largest) / 2, largest], atol=0.05 * span)
        assert least <= low < high <= largest


def test_inputs_that_keep_their_shape() -> None:
    """The mosaic is resized as an image of its shape: two by two cells of the widest and the highest image."""
    rule = ResizeRule(80, resize="shortest_side", max_size=100, fill=(7, 8, 9), resampling=Resampling(antialias=False))
    mosaic = make_mosaic(samples(), rule, View(0.0, (0.1, 0.0), 1.0))
    assert mosaic.image.shape[:2] == rule.input_size(2 * 88, 2 * 68)
    assert (mosaic.image[:, :7] == (7, 8, 9)).all()


def test_objects_of_a_very_long_image() -> None:
    """A side below a pixel is at least one pixel of the network input, and objects on it are dropped."""
    thin = TrainingSample(
        image=np.zeros((4, 4000, 3), np.uint8), boxes=np.array([[0, 1, 9, 3]], np.float32), labels=np.array([0])
    )
    mosaic = make_mosaic([thin] * 4, ResizeRule(64), View(5.0, (0.0, 0.0), 0.5))
    assert mosaic.image.shape == (64, 64, 3)
    assert len(mosaic.labels) == 0
