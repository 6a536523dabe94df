"""CopyBlend: pixels of the authors of DEIMv2, objects that fit, and masks that move along."""

from __future__ import annotations

import numpy as np
import pytest

from boxwright.data.transforms.copy_blend import Paste, copy_blend, draw_pastes
from boxwright.data.transforms.transform import PixelMasks, TrainingSample

RAMP = np.arange(100, dtype=np.uint8).reshape(10, 10)


def sample(image: np.ndarray, boxes: list[list[float]], labels: list[int]) -> TrainingSample:
    """A gray image; masks are the left halves of the boxes."""
    masks = np.zeros((len(boxes), *image.shape), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, np.array(boxes, int).reshape(-1, 4), strict=True):
        mask[y1:y2, x1 : (x1 + x2) // 2] = True
    return TrainingSample(
        image=np.repeat(image[:, :, None], 3, 2),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        masks=PixelMasks(masks),
    )


@pytest.mark.parametrize(
    ("opacity", "target", "margin", "area", "first", "last"),
    [
        (0.534442, (4, 3), (1, 1, 1, 1), (slice(2, 10), slice(3, 9)), 104.473, 109.639),
        (0.463436, (0, 3), (0, 1, 1, 1), (slice(2, 10), slice(0, 5)), 114.972, 109.560),
        (0.473605, (0, 0), (0, 0, 1, 1), (slice(0, 7), slice(0, 5)), 98.436, 95.057),
    ],
)
def test_pixels_of_the_authors(
    opacity: float,
    target: tuple[int, int],
    margin: tuple[int, int, int, int],
    area: tuple[slice, slice],
    first: float,
    last: float,
) -> None:
    """Measured with CopyBlend of Intellindust-AI-Lab/DEIMv2 0fff8d4, as fractions of 255 there."""
    own, other = sample(RAMP, [[0, 0, 3, 3]], [1]), sample(200 - RAMP, [[3.2, 1.8, 7.4, 7.0]], [5])
    result = copy_blend(own, other, [Paste(0, (3, 1, 7, 7), target, margin)], opacity)
    changed = result.image[area]
    assert changed[0, 0].tolist() == [round(first)] * 3
    assert changed[-1, -1].tolist() == [round(last)] * 3
    outside = np.ones((10, 10), bool)
    outside[area] = False
    assert (result.image[outside] == own.image[outside]).all()
    left, top = target
    assert result.boxes.tolist() == [[0, 0, 3, 3], [left, top, left + 4, top + 6]]
    assert result.labels.tolist() == [1, 5]


def test_masks_move_with_objects_and_those_below_stay() -> None:
    own, other = sample(RAMP, [[2, 2, 8, 8]], [1]), sample(RAMP, [[0, 0, 4, 4], [2, 4, 8, 10]], [2, 3])
    masks = copy_blend(own, other, [Paste(1, (2, 4, 8, 10), (3, 1), (1, 1, 1, 0))], 0.5).mask_pixels()
    assert masks is not None
    assert (masks[0] == own.mask_pixels()[0]).all()  # type: ignore[index]
    expected = np.zeros((10, 10), bool)
    expected[1:7, 3:6] = True
    assert (masks[1] == expected).all()


def test_drawn_objects_fit_into_both_images() -> None:
    """Up to three of at least 100 square pixels, each once, margins inside both images, positions anywhere."""
    rng = np.random.default_rng(0)
    own = sample(np.zeros((60, 80), np.uint8), [], [])
    boxes = [[2, 3, 30.5, 40], [50, 50, 59, 59], [0, 0, 100, 90], [70, 60, 99.5, 89.9], [20.7, 30, 40, 70]]
    other = sample(np.zeros((90, 100), np.uint8), boxes, [0, 1, 2, 3, 4])
    drawn: set[int] = set()
    corners = []
    for _ in range(300):
        pastes = draw_pastes(own, other, rng)
        assert len({paste.row for paste in pastes}) == len(pastes) == 3
        for row, (x1, y1, x2, y2), (left, top), (before_x, before_y, after_x, after_y) in pastes:
            assert 0 <= x1 - before_x < x2 + after_x <= 100
            assert 0 <= y1 - before_y < y2 + after_y <= 90
            assert 0 <= left - before_x < left + x2 - x1 + after_x <= 80
            assert 0 <= top - before_y < top + y2 - y1 + after_y <= 60
            assert max(before_x, after_x) <= 0.25 * (x2 - x1)
            drawn.add(row)
            if row == 0:
                corners.append((left, top))
        result = copy_blend(own, other, pastes, 0.5)
        assert len(result.boxes) == len(result.labels) == 3
    assert drawn == {0, 2, 3, 4}
    assert np.ptp(corners, axis=0).tolist() == [80 - 28, 60 - 37]


def test_an_image_without_large_objects_changes_nothing() -> None:
    own, other = sample(RAMP, [[0, 0, 3, 3]], [1]), sample(RAMP, [[0, 0, 9, 9]], [2])
    pastes = draw_pastes(own, other, np.random.default_rng(0))
    assert pastes == []
    same = copy_blend(own, other, pastes, 0.5)
    assert (same.image == own.image).all()
    assert same.labels.tolist() == [1]
