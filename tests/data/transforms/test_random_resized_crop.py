"""The crop of random area and shape: torchvision's distribution, and boxes that follow the pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from red_rectangles import followed_rectangles
from torchvision.transforms import v2

from boxwright.data.images import resample
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.random_resized_crop import random_resized_crop
from boxwright_runtime.input_format import ResizeRule, Window

ONLY: dict[str, Any] = {
    "photometric": 0.0,
    "channel_shuffle": 0.0,
    "zoom_out": 0.0,
    "iou_crop": 0.0,
    "flip": 0.0,
    "resized_crop": (0.08, 1.0),
}
NO_BOXES = np.zeros((0, 4), dtype=np.float32)


@pytest.mark.parametrize("shape", [(480, 640), (300, 1200), (64, 48), (5, 7)])
@pytest.mark.parametrize("area_range", [(0.08, 1.0), (0.6, 1.0)])
def test_regions_are_torchvisions(shape: tuple[int, int], area_range: tuple[float, float]) -> None:
    """Mean and spread of positions and sides, and how often a side is whole, over 3,000 draws each."""
    torch.manual_seed(0)
    rng, transform, image = np.random.default_rng(0), v2.RandomResizedCrop(224, area_range), torch.zeros(3, *shape)
    ours, theirs = [], []
    for _ in range(3000):
        (x1, y1, x2, y2), height, width = random_resized_crop(*shape, area_range, rng)
        assert (y2 - y1, x2 - x1) == (height, width)
        ours.append([y1, x1, height, width, height == shape[0], width == shape[1]])
        drawn = transform.make_params([image])
        top, left, height, width = (drawn[name] for name in ("top", "left", "height", "width"))
        theirs.append([top, left, height, width, height == shape[0], width == shape[1]])
    a, b = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    error = np.sqrt((a.var(0) + b.var(0)) / 3000)
    assert (np.abs(a.mean(0) - b.mean(0)) <= 4 * error + 1e-9).all()
    assert a.std(0)[:4] == pytest.approx(b.std(0)[:4], rel=0.08, abs=0.02)


@pytest.mark.parametrize("shape", [(100, 1000), (1000, 100), (1, 300), (300, 2), (1, 1), (37, 101)])
def test_what_fits_nowhere_is_torchvisions_center(shape: tuple[int, int]) -> None:
    region = random_resized_crop(*shape, (0.999, 1.0), np.random.default_rng(0))
    drawn = v2.RandomResizedCrop(224, (0.999, 1.0)).make_params([torch.zeros(3, *shape)])
    top, left, height, width = (drawn[name] for name in ("top", "left", "height", "width"))
    assert region == (Window(left, top, left + width, top + height), height, width)


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    area_range=st.sampled_from([(0.08, 1.0), (0.25, 0.3), (0.9, 0.95), (0.0001, 0.01)]),
    seed=st.integers(0, 2**32),
)
def test_regions_lie_inside_and_have_the_promised_area(
    height: int, width: int, area_range: tuple[float, float], seed: int
) -> None:
    (x1, y1, x2, y2), rows, columns = random_resized_crop(height, width, area_range, np.random.default_rng(seed))
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert (rows, columns) == (y2 - y1, x2 - x1)
    centered = (x1, y1) == ((width - columns) // 2, (height - rows) // 2) and (rows == height or columns == width)
    if not centered:
        assert (columns + 0.5) / (rows - 0.5) >= 3 / 4, "both sides are rounded"
        assert (columns - 0.5) / (rows + 0.5) <= 4 / 3
        low, high = (math.sqrt(fraction * height * width) for fraction in area_range)
        assert low - 1 <= math.sqrt(rows * columns) <= high + 1


@pytest.mark.parametrize(
    "resize_rule", [ResizeRule(96), ResizeRule(96, "shortest_side", 160), ResizeRule(96, "center_crop")]
)
def test_the_input_is_exactly_the_region(resize_rule: ResizeRule) -> None:
    """Cropped in whole pixels, then resized; as a square, or in the region's own shape."""
    image, augment = np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8), Augmentation(**ONLY)
    shapes = set()
    for seed in range(40):
        pixels, _, _, crop = augment.augment_image(image, NO_BOXES, resize_rule, np.random.default_rng(seed))
        x1, y1, x2, y2 = map(int, crop.window)
        assert crop.input_size == resize_rule.input_size(y2 - y1, x2 - x1)
        region = np.ascontiguousarray(image[y1:y2, x1:x2])
        assert torch.equal(pixels, resample(region, Window.whole(y2 - y1, x2 - x1), *crop.input_size))
        shapes.add(crop.input_size)
    assert (len(shapes) > 10) == (resize_rule.resize == "shortest_side")


def test_every_object_stays_that_a_part_is_left_of() -> None:
    augment = Augmentation(**{**ONLY, "flip": 0.5, "zoom_out": 1.0, "iou_crop": 1.0})
    boxes = np.array([[20, 30, 90, 120], [100, 10, 130, 40], [5, 5, 14, 12], [0, 0, 210, 150]], dtype=np.float32)
    image, counts = np.zeros((150, 210, 3), dtype=np.uint8), set()
    for seed in range(200):
        _, moved, kept, crop = augment.augment_image(image, boxes, ResizeRule(96), np.random.default_rng(seed))
        x1, y1, x2, y2 = crop.window
        assert x1 >= 0
        assert y1 >= 0
        left = boxes.clip([x1, y1, x1, y1], [x2, y2, x2, y2])
        sides = (left[:, 2:] - left[:, :2]) * [96 / (x2 - x1), 96 / (y2 - y1)]
        assert kept.tolist() == np.flatnonzero((sides >= 1).all(1)).tolist()
        assert moved[-1].tolist() == [0, 0, 96, 96], "the box of a whole image"
        counts.add(len(kept))
    assert counts == {1, 2, 3, 4}


def test_red_pixels_have_their_boxes() -> None:
    augment = Augmentation(**{**ONLY, "flip": 0.5, "vertical_flip": 0.5})
    assert followed_rectangles(augment, ResizeRule(96), tolerance=1) > 100


def test_without_strong_augmentation_it_only_mirrors() -> None:
    augment, rng = Augmentation(**ONLY), np.random.default_rng(0)
    crop, _ = augment.draw_crop(480, 640, NO_BOXES, ResizeRule(64), rng, is_strong=False)
    assert crop == (Window.whole(480, 640), (64, 64), False, False)


@pytest.mark.parametrize("area_range", [(0.0, 1.0), (0.9, 0.5), (0.5, 1.1), (float("nan"), 1.0)])
def test_bad_area_ranges(area_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="resized_crop is the least and the largest fraction of the area, above 0"):
        Augmentation(resized_crop=area_range)
