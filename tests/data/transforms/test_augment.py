"""Augmentation: boxes follow pixels, chance follows torchvision, and the seed decides everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from boxwright.data.crop import Crop
from boxwright.data.images import resample
from boxwright.data.transforms.augment import Augmentation, Augmented, zoom_out_window
from boxwright.data.transforms.random_iou_crop import random_iou_crop
from boxwright_runtime.input_format import ResizeRule, Window

HEIGHT, WIDTH = 150, 210
BOXES = np.array([[20, 30, 90, 120], [100, 10, 130, 40], [5, 5, 14, 12], [60, 60, 205, 145]], dtype=np.float32)
PLAIN: dict[str, Any] = {
    "photometric": 0.0,
    "channel_shuffle": 0.0,
    "zoom_out": 0.0,
    "iou_crop": 0.0,
    "flip": 0.0,
}
NO_BOXES = np.zeros((0, 4), dtype=np.float32)


def painted(box: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Gray, with a red rectangle on the box's pixels."""
    image = np.full((height, width, 3), 100, dtype=np.uint8)
    x1, y1, x2, y2 = box.astype(int)
    image[y1:y2, x1:x2] = (250, 0, 0)
    return image


def red_box(pixels: torch.Tensor) -> np.ndarray:
    """Return the box of the red pixels."""
    rows, columns = np.nonzero((pixels[0].int() - pixels[1].int()).numpy() > 125)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize(
    "options",
    [
        {"flip": 1.0},
        {"vertical_flip": 1.0},
        {"zoom_out": 1.0},
        {"iou_crop": 1.0},
        {"zoom_out": 0.5, "iou_crop": 0.8, "flip": 0.5, "vertical_flip": 0.5},
    ],
    ids=["flip", "vertical_flip", "zoom_out", "iou_crop", "all"],
)
def test_boxes_follow_pixels(options: dict[str, float]) -> None:
    """The box of the red pixels in the input is the box that comes with it, for 300 random inputs."""
    augment = Augmentation(**{**PLAIN, **options})
    for seed in range(300):
        rng = np.random.default_rng(seed)
        corner = rng.integers(0, [WIDTH - 40, HEIGHT - 40])
        box = np.concatenate((corner, corner + rng.integers(20, 40, 2))).astype(np.float32)
        size = int(rng.choice([96, 160, 224]))
        pixels, boxes, kept, _ = augment.augment_image(painted(box), box[None], ResizeRule(size), rng)
        assert pixels.shape == (3, size, size)
        assert kept.tolist() == [0], "the only object's center is always shown"
        assert np.abs(red_box(pixels) - boxes[0]).max() <= 1.5


def test_nothing_switched_on_is_a_plain_resize() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels, boxes, kept, crop = Augmentation(**PLAIN).augment_image(
        image, BOXES, ResizeRule(64), np.random.default_rng(1)
    )
    assert crop == Crop(Window.whole(HEIGHT, WIDTH), (64, 64))
    assert torch.equal(pixels, resample(image, Window.whole(HEIGHT, WIDTH), 64, 64))
    assert np.allclose(boxes, BOXES * np.array([64 / WIDTH, 64 / HEIGHT] * 2), atol=1e-4)
    assert kept.tolist() == [0, 1, 2, 3]


def test_flips_are_exact_mirrors() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    plain = Crop(Window.whole(HEIGHT, WIDTH), (48, 64))
    mirrored = plain._replace(flip_x=True)
    upside_down = plain._replace(flip_y=True)
    assert torch.equal(mirrored.render(image), plain.render(image).flip(2))
    assert torch.equal(upside_down.render(image), plain.render(image).flip(1))
    x1, y1, x2, y2 = plain.boxes(BOXES).T
    assert np.allclose(mirrored.boxes(BOXES).T, [64 - x2, y1, 64 - x1, y2])
    assert np.allclose(upside_down.boxes(BOXES).T, [x1, 48 - y2, x2, 48 - y1])


def test_boxes_are_clipped_and_tiny_ones_dropped() -> None:
    """At an eighth of its size, a box of 9 x 7 pixels has a side below one pixel of the input."""
    size = 32
    augment = Augmentation(**{**PLAIN, "iou_crop": 1.0})
    dropped = 0
    for seed in range(200):
        _, boxes, kept, _ = augment.augment_image(
            painted(BOXES[0]), BOXES, ResizeRule(size), np.random.default_rng(seed)
        )
        assert boxes.min() >= 0
        assert boxes.max() <= size
        assert (boxes[:, 2:] - boxes[:, :2]).min() >= 1.0
        assert len(boxes) == len(kept) == len(set(kept.tolist()))
        assert kept.tolist() == sorted(kept.tolist())
        dropped += len(kept) < len(BOXES)
    assert dropped > 50
    _, boxes, kept, _ = Augmentation(**PLAIN).augment_image(
        painted(BOXES[0]), BOXES, ResizeRule(20), np.random.default_rng(0)
    )
    assert kept.tolist() == [0, 1, 3]


def test_the_border_stays_black_and_everything_else_changes_color() -> None:
    """A gray image has one color after any change; the border of the zoomed-out image keeps its own."""
    augment = Augmentation(photometric=1.0, zoom_out=1.0, flip=0.5, vertical_flip=0.5)
    image = np.full((HEIGHT, WIDTH, 3), 130, dtype=np.uint8)
    with_border = 0
    for seed in range(100):
        pixels = augment.augment_image(image, BOXES, ResizeRule(96), np.random.default_rng(seed)).image.flatten(1)
        colors = torch.unique(pixels, dim=1).T.tolist()
        assert len(colors) <= 2
        with_border += [0, 0, 0] in colors
        assert any(min(color) > 40 for color in colors)
        assert all(color == [0, 0, 0] or min(color) > 40 for color in colors)
    assert with_border > 50


def test_without_strong_augmentation_it_only_mirrors() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    augment = Augmentation(photometric=1.0, zoom_out=1.0, iou_crop=1.0)
    plain = resample(image, Window.whole(HEIGHT, WIDTH), 64, 64)
    mirrored = 0
    for seed in range(100):
        pixels, _, kept, _ = augment.augment_image(
            image, BOXES, ResizeRule(64), np.random.default_rng(seed), is_strong=False
        )
        flipped = not torch.equal(pixels, plain)
        assert not flipped or torch.equal(pixels, plain.flip(2))
        assert len(kept) == len(BOXES)
        mirrored += flipped
    assert 30 < mirrored < 70


def test_images_without_objects_are_augmented_like_all_others() -> None:
    """TRAPS 12: their windows and colors vary as much as those of images with one large object."""
    augment = Augmentation()
    whole = np.array([[0, 0, WIDTH, HEIGHT]], dtype=np.float32)
    empty, filled = (
        [
            augment.draw_crop(HEIGHT, WIDTH, boxes, ResizeRule(64), np.random.default_rng(seed))[0]
            for seed in range(1000)
        ]
        for boxes in (NO_BOXES, whole)
    )
    assert empty == filled
    areas = np.array([(x2 - x1) * (y2 - y1) for (x1, y1, x2, y2), *_ in empty]) / (WIDTH * HEIGHT)
    assert (areas < 1).mean() > 0.15, "cropped"
    assert (areas > 1).mean() > 0.3, "zoomed out"
    assert np.mean([crop.flip_x for crop in empty]) == pytest.approx(0.5, abs=0.06)

    image = np.full((HEIGHT, WIDTH, 3), (180, 130, 70), dtype=np.uint8)
    results = [
        augment.augment_image(image, NO_BOXES, ResizeRule(32), np.random.default_rng(seed)) for seed in range(200)
    ]
    assert all(result.boxes.shape == (0, 4) and result.indices.shape == (0,) for result in results)
    colors = {tuple(result.image.flatten(1).amax(1).tolist()) for result in results}
    assert len(colors) > 150


def test_the_seed_decides_everything() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    augment = Augmentation()

    def draw(seed: int) -> Augmented:
        return augment.augment_image(image, BOXES, ResizeRule(64), np.random.default_rng(seed))

    for seed in range(20):
        first, again, other = draw(seed), draw(seed), draw(seed + 1000)
        assert torch.equal(first.image, again.image)
        assert np.array_equal(first.boxes, again.boxes)
        assert np.array_equal(first.indices, again.indices)
        assert not torch.equal(first.image, other.image)


def test_zoom_out_is_torchvisions() -> None:
    """Sides of the larger image and position of the image in it, over 3,000 draws each."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    transform = v2.RandomZoomOut(p=1.0)
    image = tv_tensors.Image(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8))
    ours, theirs = [], []
    for _ in range(3000):
        x1, y1, x2, y2 = zoom_out_window(Window.whole(HEIGHT, WIDTH), 4.0, rng)
        ours.append([-x1, -y1, x2 - WIDTH, y2 - HEIGHT])
        theirs.append(transform.make_params([image])["padding"])
    mean, spread = np.mean(ours, 0), np.std(ours, 0)
    assert np.min(ours) >= 0
    assert mean == pytest.approx(np.mean(theirs, 0), rel=0.07)
    assert spread == pytest.approx(np.std(theirs, 0), rel=0.07)


def test_iou_crop_is_torchvisions() -> None:
    """Area and middle of the crops, fraction of boxes kept and of untouched images, over 1,000 draws each."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    transform = v2.RandomIoUCrop()
    image = tv_tensors.Image(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes(torch.from_numpy(BOXES), format="XYXY", canvas_size=(HEIGHT, WIDTH))

    def describe(window: tuple[float, ...], inside: np.ndarray) -> list[float]:
        x1, y1, x2, y2 = window
        whole = float((x1, y1, x2, y2) == (0, 0, WIDTH, HEIGHT))
        return [(x2 - x1) / WIDTH, (y2 - y1) / HEIGHT, (x1 + x2) / WIDTH, (y1 + y2) / HEIGHT, whole, *inside]

    ours, theirs = [], []
    for _ in range(1000):
        ours.append(describe(*random_iou_crop(Window.whole(HEIGHT, WIDTH), HEIGHT, WIDTH, BOXES, rng)))
        params = transform.make_params([image, boxes])
        if params:
            left, top = params["left"], params["top"]
            window = (left, top, left + params["width"], top + params["height"])
            theirs.append(describe(window, params["is_within_crop_area"].numpy()))
        else:
            theirs.append(describe((0, 0, WIDTH, HEIGHT), np.ones(len(BOXES))))
    a, b = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    error = np.sqrt((a.var(0) + b.var(0)) / 1000)
    assert (np.abs(a.mean(0) - b.mean(0)) < 4 * error).all()
    assert error.max() < 0.025, "the comparison above means something"
    assert a.std(0) == pytest.approx(b.std(0), abs=0.05)


def test_crops_keep_what_they_promise() -> None:
    for seed in range(500):
        rng = np.random.default_rng(seed)
        window = zoom_out_window(Window.whole(HEIGHT, WIDTH), 4.0, rng)
        (x1, y1, x2, y2), inside = random_iou_crop(window, HEIGHT, WIDTH, BOXES, rng)
        assert window.x1 <= x1 < x2 <= window.x2
        assert window.y1 <= y1 < y2 <= window.y2
        centers = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        shown = ((centers > (x1, y1)) & (centers < (x2, y2))).all(1)
        assert np.array_equal(inside, shown)
        assert inside.any()
        if (x1, y1, x2, y2) != window:
            assert 0.5 <= (x2 - x1) / (y2 - y1) <= 2.0


def test_images_of_one_pixel_and_extreme_shapes() -> None:
    augment = Augmentation(zoom_out=1.0, iou_crop=1.0)
    for height, width in ((1, 1), (1, 300), (300, 2)):
        image = np.full((height, width, 3), 90, dtype=np.uint8)
        box = np.array([[0, 0, width, height]], dtype=np.float32)
        for seed in range(30):
            for boxes in (box, NO_BOXES):
                pixels, moved, *_ = augment.augment_image(image, boxes, ResizeRule(32), np.random.default_rng(seed))
                assert pixels.shape == (3, 32, 32)
                assert np.isfinite(moved).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "flip is a probability, from 0 to 1; got 1.5"),
        ({"photometric": -0.1}, "photometric is a probability"),
        ({"zoom_out": float("nan")}, "zoom_out is a probability"),
        ({"zoom_out_max": 0.5}, "zoom_out_max must be at least 1"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)
