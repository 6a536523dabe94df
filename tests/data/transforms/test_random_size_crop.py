"""DETR's crops and scales: their distribution, and that boxes follow the pixels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.random_size_crop import draw_scale, random_size_crop
from boxwright_runtime.input_format import ResizeRule, Window

DETR: dict[str, Any] = {
    "photometric": 0.0,
    "channel_shuffle": 0.0,
    "zoom_out": 0.0,
    "iou_crop": 0.0,
    "scale_range": (0.6, 1.0),
    "size_crop": 0.5,
}
CROPPED = DETR | {"size_crop": 1.0}
FULL = ResizeRule(800, "shortest_side", 1333)
SMALL = ResizeRule(160, "shortest_side", 267)
HEIGHT, WIDTH = 150, 210
BOXES = np.array([[20, 30, 90, 120], [100, 10, 130, 40], [5, 5, 14, 12], [60, 60, 205, 145]], dtype=np.float32)


# Fraction of the image's width and height, middle, and input size (width, height): mean and spread of 60,000 draws of
# RandomResize([400, 500, 600]), RandomSizeCrop(384, 600), RandomResize(480 .. 800, max_size=1333).
DRAWN_BY_DETR = {
    (480, 640): ([0.7383, 0.8947, 0.4999, 0.5002, 723.5, 662.4], [0.1315, 0.0976, 0.0848, 0.0415, 142.1, 117.6]),
    (640, 427): ([0.8944, 0.6747, 0.4998, 0.5001, 663.6, 742.4], [0.0977, 0.1420, 0.0419, 0.1028, 119.1, 155.4]),
    (300, 1200): ([0.2526, 0.8945, 0.5016, 0.4999, 742.2, 663.6], [0.0532, 0.0974, 0.2171, 0.0419, 156.1, 118.5]),
}


@pytest.mark.parametrize("shape", DRAWN_BY_DETR)
def test_crops_are_drawn_as_in_detr(shape: tuple[int, int]) -> None:
    height, width = shape
    augment, rng = Augmentation(**CROPPED), np.random.default_rng(0)
    draws = []
    for _ in range(4000):
        crop, _ = augment.draw_crop(height, width, BOXES, FULL, rng)
        (x1, y1, x2, y2), size = crop.window, crop.input_size
        middle = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height]
        draws.append([(x2 - x1) / width, (y2 - y1) / height, *middle, size[1], size[0]])
    mean, spread = map(np.array, DRAWN_BY_DETR[shape])
    assert (np.abs(np.mean(draws, 0) - mean) < 4 * spread / np.sqrt(len(draws))).all()
    assert np.std(draws, 0) == pytest.approx(spread, rel=0.05)


def test_crops_lie_inside_and_have_the_promised_size() -> None:
    """384 to 600 pixels of an image resized to a shortest side of 400, 500 or 600, at an image size of 800."""
    sides = set()
    for seed in range(1000):
        window, height, width = random_size_crop(480, 640, FULL, np.random.default_rng(seed))
        assert 0 <= window.x1 < window.x2 <= 640
        assert 0 <= window.y1 < window.y2 <= 480
        assert 384 <= min(height, width) <= max(height, width) <= 600
        sides |= {height, width}
        scales = [first / 480 for first in (400, 500, 600)]
        errors = [
            max(abs(window.x2 - window.x1 - width / scale), abs(window.y2 - window.y1 - height / scale))
            for scale in scales
        ]
        assert min(errors) <= 1.5, "whole pixels of the image, and of the resized one"
    assert {min(sides), max(sides)} == {384, 600}


def test_everything_is_relative_to_the_image_size() -> None:
    for seed in range(200):
        large = random_size_crop(480, 640, FULL, np.random.default_rng(seed))
        small = random_size_crop(480, 640, SMALL, np.random.default_rng(seed))
        assert small.height == pytest.approx(large.height / 5, abs=1.5)
        assert small.width == pytest.approx(large.width / 5, abs=1.5)


def test_scales_are_detrs() -> None:
    """480, 512, ... 800 of 800, evenly drawn."""
    augment, rng = Augmentation(**(DETR | {"size_crop": 0.0})), np.random.default_rng(0)
    sizes = Counter(augment.draw_crop(480, 640, BOXES, FULL, rng)[0].input_size for _ in range(5500))
    assert sorted(sizes) == [(side, side * 4 // 3) for side in range(480, 801, 32)]
    assert min(sizes.values()) > 400
    assert max(sizes.values()) < 600
    long = Counter(augment.draw_crop(300, 1200, BOXES, FULL, rng)[0].input_size for _ in range(100))
    assert set(long) == {(333, 1332)}, "the longest side is the same at every scale"


def test_one_scale_takes_no_chance() -> None:
    rng = np.random.default_rng(0)
    assert draw_scale((0.7, 0.7), rng) == 0.7
    assert rng.random() == np.random.default_rng(0).random()
    assert {round(draw_scale((0.9, 1.0), rng), 3) for _ in range(100)} == {0.9, 0.94, 0.98}


@pytest.mark.parametrize("resize_rule", [SMALL, ResizeRule(160)], ids=["shortest_side", "square"])
def test_boxes_follow_pixels(resize_rule: ResizeRule) -> None:
    """The red pixels in an input have the box that comes with it; where none comes, they are a line at most."""
    augment = Augmentation(**(CROPPED | {"flip": 0.5, "vertical_flip": 0.5}))
    shown, shapes = 0, set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        corner = rng.integers(0, [WIDTH - 60, HEIGHT - 60])
        x1, y1, x2, y2 = box = np.concatenate((corner, corner + rng.integers(20, 60, 2)))
        image = np.full((HEIGHT, WIDTH, 3), 100, dtype=np.uint8)
        image[y1:y2, x1:x2] = (250, 0, 0)
        pixels, boxes, kept, _ = augment.augment_image(image, box[None].astype(np.float32), resize_rule, rng)
        shapes.add(tuple(pixels.shape[1:]))
        rows, columns = np.nonzero((pixels[0].int() - pixels[1].int()).numpy() > 125)
        if not len(kept):
            assert min(len(set(rows)), len(set(columns))) <= 1
            continue
        shown += 1
        red = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(red - boxes[0]).max() <= 1
    assert shown > 150
    assert len(shapes) > 10 if resize_rule.resize == "shortest_side" else len(shapes) == 11


def test_every_object_stays_that_the_crop_leaves_a_part_of() -> None:
    """No rule about centers, unlike the crop around objects."""
    augment, outside = Augmentation(**CROPPED), 0
    for seed in range(300):
        rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
        (x1, y1, x2, y2), (height, width), *_ = augment.draw_crop(HEIGHT, WIDTH, BOXES, SMALL, again)[0]
        left = BOXES.clip([x1, y1, x1, y1], [x2, y2, x2, y2])
        sides = (left[:, 2:] - left[:, :2]) * [width / (x2 - x1), height / (y2 - y1)]
        _, boxes, kept, _ = augment.augment_image(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), BOXES, SMALL, rng)
        assert kept.tolist() == np.flatnonzero((sides >= 1).all(1)).tolist()
        assert len(boxes) == len(kept)
        centers = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        outside += sum(not ((x1, y1) < centers[i]).all() or not (centers[i] < (x2, y2)).all() for i in kept)
    assert outside > 50


def test_without_strong_augmentation_it_only_mirrors_at_the_full_size() -> None:
    augment, rng = Augmentation(**CROPPED), np.random.default_rng(0)
    crops = [augment.draw_crop(480, 640, BOXES, FULL, rng, is_strong=False)[0] for _ in range(100)]
    assert {(crop.window, crop.input_size) for crop in crops} == {(Window.whole(480, 640), (800, 1066))}
    assert {crop.flip_x for crop in crops} == {True, False}


def test_the_crop_replaces_zooming_out() -> None:
    augment, rng = Augmentation(zoom_out=1.0, iou_crop=0.0, size_crop=0.5), np.random.default_rng(0)
    windows = [augment.draw_crop(HEIGHT, WIDTH, BOXES, SMALL, rng)[0].window for _ in range(400)]
    inside = [w.x1 >= 0 and w.y1 >= 0 and w.x2 <= WIDTH and w.y2 <= HEIGHT for w in windows]
    assert 0.4 < np.mean(inside) < 0.6


def test_images_of_one_pixel_and_extreme_shapes() -> None:
    augment = Augmentation(**CROPPED)
    for height, width in ((1, 1), (1, 300), (300, 2)):
        image = np.full((height, width, 3), 90, dtype=np.uint8)
        box = np.array([[0, 0, width, height]], dtype=np.float32)
        for seed in range(30):
            pixels, moved, kept, _ = augment.augment_image(image, box, SMALL, np.random.default_rng(seed))
            assert kept.tolist() == [0]
            assert moved[0].tolist() == [0, 0, pixels.shape[2], pixels.shape[1]]
            assert (pixels == 90).all()


@pytest.mark.parametrize("scale_range", [(0.0, 1.0), (1.0, 0.6), (0.5, float("inf")), (float("nan"), 1.0)])
def test_bad_scales(scale_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="scale_range is the least and the largest scale, greater than 0; got"):
        Augmentation(scale_range=scale_range)


def test_bad_probability() -> None:
    with pytest.raises(ValueError, match=r"size_crop is a probability, from 0 to 1; got 1\.5"):
        Augmentation(size_crop=1.5)
