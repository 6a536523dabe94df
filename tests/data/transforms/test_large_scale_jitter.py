"""Large-scale jitter: sizes and positions are those of other projects, and boxes, masks and pixels stay together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from red_rectangles import followed_rectangles
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from boxwright.data.crop import Crop
from boxwright.data.images import resample
from boxwright.data.loading.loader import train_loader
from boxwright.data.loading.sampler import BatchSampler
from boxwright.data.masks import render_record_masks
from boxwright.data.open import open_data
from boxwright.data.records import Record
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.large_scale_jitter import jitter_window, large_scale_jitter, resized_image_size
from boxwright.ops.masks import encode_mask
from boxwright_runtime.input_format import InputFormat, Resize, ResizeRule, Window
from boxwright_runtime.masks import to_json

ONLY: dict[str, Any] = {
    "photometric": 0.0,
    "channel_shuffle": 0.0,
    "zoom_out": 0.0,
    "iou_crop": 0.0,
    "flip": 0.0,
    "scale_jitter": (0.1, 2.0),
}
FITTED = ResizeRule(512, "shortest_side", 512)
"""Evaluation fits images into a square, as the projects do that are compared with."""

SHAPES = ((480, 640), (640, 427), (300, 1200), (333, 500), (50, 37))


def smooth(height: int, width: int) -> np.ndarray:
    """Return an image of slow changes, in which an error of a pixel is a small difference."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(6 * x + 4 * y), np.cos(5 * x - 7 * y), np.sin(9 * y)]
    return (127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def test_boxes_are_scaled_and_shifted() -> None:
    """An image of 300 x 400 is 384 x 512 at scale 1, 480 x 640 at 1.25; 100 and 60 pixels of it are cut off."""
    assert resized_image_size(300, 400, FITTED, 1.25) == (480, 640)
    crop = Crop(jitter_window(300, 400, (480, 640), (60, 100), 512), (512, 512))
    boxes = np.array([[100, 50, 200, 250], [0, 0, 400, 300], [330, 290, 395, 300], [0, 0, 62, 37]], dtype=np.float32)
    expected = [[60, 20, 220, 340], [0, 0, 512, 420], [428, 404, 512, 420], [0, 0, 0, 0]]
    assert crop.boxes(boxes)[:3] == pytest.approx(np.array(expected[:3]), abs=1e-3)
    assert crop.boxes(boxes)[3, 2:].max() < 1
    image = np.zeros((300, 400, 3), dtype=np.uint8)
    small = Crop(jitter_window(300, 400, resized_image_size(300, 400, FITTED, 0.5), (0, 0), 512), (512, 512))
    assert small.boxes(boxes)[0] == pytest.approx([64, 32, 128, 160], abs=1e-3)
    assert small.visible_area(300, 400) == (slice(0, 192), slice(0, 256))
    assert crop.visible_area(300, 400) == (slice(0, 420), slice(0, 512))
    assert crop.render(image).shape == (3, 512, 512)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_sizes_are_torchvisions_and_detectron2s(height: int, width: int) -> None:
    """ScaleJitter's but for its rounding down; and those of ResizeScale, which rounds to the nearest."""
    for scale in (0.1, 0.5, 0.8, 1.0, 1.25, 2.0):
        rows, columns = resized_image_size(height, width, FITTED, scale)
        image = torch.zeros(3, height, width)
        theirs = v2.ScaleJitter((512, 512), (scale, scale)).make_params([image])["size"]
        exact = np.array([height, width]) * min(512 / height, 512 / width) * scale
        assert np.abs(np.array([rows, columns]) - theirs).max() <= 2
        # Half a pixel of rounding; the size at scale 1 is rounded too, and multiplied then.
        assert np.abs(np.array([rows, columns]) - exact).max() <= 0.5 + scale


def test_scales_are_drawn_as_in_torchvision() -> None:
    torch.manual_seed(0)
    rng, transform, image = np.random.default_rng(0), v2.ScaleJitter((512, 512), (0.1, 2.0)), torch.zeros(3, 333, 500)
    ours, theirs = [], []
    for _ in range(3000):
        window, _ = large_scale_jitter(333, 500, FITTED, (0.1, 2.0), rng)
        ours.append(512 / (window.x2 - window.x1))  # of the image to the input
        theirs.append(transform.make_params([image])["size"][1] / 500)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.04)
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.04)
    assert (min(ours), max(ours)) == pytest.approx((0.1024, 2.048), abs=0.01)


def test_parts_are_drawn_evenly_on_each_axis_for_itself() -> None:
    """Of 1,024 x 1,024 pixels, 512 x 512 at any whole pixel."""
    rng = np.random.default_rng(0)
    windows = [large_scale_jitter(256, 256, FITTED, (2.0, 2.0), rng)[0] for _ in range(4000)]
    offsets = np.array([(window.x1, window.y1) for window in windows]) * 4
    assert (offsets == offsets.round()).all()
    assert (offsets.min(), offsets.max()) == (0, 512)
    spread = np.sqrt((513**2 - 1) / 12)
    assert offsets.mean(0) == pytest.approx(256, abs=4 * spread / np.sqrt(4000))
    assert offsets.std(0) == pytest.approx(spread, rel=0.03)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.06


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_smaller_images_are_resized_whole_onto_black(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for scale in (0.1, 0.37, 1.0):
        rows, columns = resized_image_size(height, width, FITTED, scale)
        pixels = Crop(jitter_window(height, width, (rows, columns), (0, 0), 512), (512, 512)).render(image)
        assert torch.equal(pixels[:, :rows, :columns], resample(image, Window.whole(height, width), rows, columns))
        assert not pixels[:, rows:].any()
        assert not pixels[:, :, columns:].any()


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("scale", [1.25, 2.0])
def test_larger_images_are_resized_then_cropped(height: int, width: int, scale: float) -> None:
    """To within a pixel of the input, and half of one of the image at its edges, where the neighbors are cut off.

    What is a pixel off differs by the steepest step between neighbors at most.
    """
    image, rng = smooth(height, width), np.random.default_rng(0)
    resized = resized_image_size(height, width, FITTED, scale)
    whole = F.resize(torch.from_numpy(image).permute(2, 0, 1), list(resized), antialias=True).int()
    steepest = max(int(whole.diff(dim=axis).abs().max()) for axis in (1, 2))
    for _ in range(10):
        top, left = (int(rng.integers(max(length - 512, 0) + 1)) for length in resized)
        pixels = Crop(jitter_window(height, width, resized, (top, left), 512), (512, 512)).render(image).int()
        expected = whole[:, top : top + 512, left : left + 512]
        rows, columns = expected.shape[1:]
        difference = (pixels[:, :rows, :columns] - expected).abs()
        pixel = math.ceil(max(resized[0] / height, resized[1] / width))
        assert difference[:, pixel:-pixel, pixel:-pixel].max() <= steepest + 1
        assert difference.max() <= (1 + pixel / 2) * steepest + 1
        assert difference.float().mean() < 0.5
        assert not pixels[:, rows:].any()
        assert not pixels[:, :, columns:].any()


@settings(max_examples=100, deadline=None)
@given(start=st.floats(0, 20), length=st.floats(1, 20), first=st.integers(0, 38), side=st.integers(32, 200))
def test_windows_between_pixels_show_edges_where_they_belong(
    start: float, length: float, first: int, side: int
) -> None:
    """Windows may cut anything in two: a step from black to white lies within a pixel of its position in the input."""
    image = np.zeros((3, 40, 3), dtype=np.uint8)
    image[:, first:] = 255
    pixels = resample(image, Window(start, 0, start + length, 3), 3, side)
    position = min(max((first - start) * side / length, 0), side)
    # Interpolation is symmetric about an edge, so that it keeps the sum, except where the window cuts it off.
    white = float(pixels[0, 1].float().mean() / 255 * side)
    cut_off = min(position, side - position) < side / length
    assert abs(side - white - position) <= 1.01 + (side / length / 2 if cut_off else 0)


def record(height: int, width: int, boxes: np.ndarray, *, polygons: bool) -> Record:
    """Rectangles that fill their boxes."""
    segmentations: list[Any] = []
    for x1, y1, x2, y2 in boxes.tolist():
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[y1:y2, x1:x2] = True
        segmentations.append([[x1, y1, x2, y1, x2, y2, x1, y2]] if polygons else to_json(encode_mask(mask)))
    return Record(
        image_id=1,
        path=Path("a.png"),
        height=height,
        width=width,
        labels=np.zeros(len(boxes), dtype=np.int64),
        bbox_xywh=np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1).astype(np.float64),
        area=(boxes[:, 2:] - boxes[:, :2]).prod(1).astype(np.float64),
        crowd=np.zeros(len(boxes), dtype=bool),
        annotation_ids=tuple(range(len(boxes))),
        segmentations=tuple(segmentations),
    )


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    resize_rule=st.sampled_from(
        [
            ResizeRule(64),
            FITTED._replace(image_size=48, max_size=80),
            ResizeRule(40, "shortest_side"),
            ResizeRule(64, "center_crop"),
        ]
    ),
    scales=st.sampled_from([(0.8, 1.25), (0.5, 2.0), (0.1, 2.0)]),
    polygons=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_masks_and_boxes_enclose_the_same(
    height: int, width: int, resize_rule: ResizeRule, scales: tuple[float, float], polygons: bool, seed: int
) -> None:
    """In an input of the same size whatever the image's; dropped objects are a line at most."""
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, [width, height], (5, 2)), rng.integers(1, [width + 1, height + 1], (5, 2))
    boxes = np.concatenate((np.minimum(low, high - 1), high), 1)
    augment = Augmentation(**{**ONLY, "scale_jitter": scales, "flip": 0.5, "vertical_flip": 0.5})
    image = np.zeros((height, width, 3), dtype=np.uint8)
    pixels, moved, kept, crop = augment.augment_image(image, boxes.astype(np.float32), resize_rule, rng)
    side = resize_rule.image_size
    assert pixels.shape == (3, side, side)
    assert (moved >= 0).all()
    assert (moved <= side).all()
    all_moved = crop.boxes(boxes.astype(np.float32))
    assert kept.tolist() == np.flatnonzero(((all_moved[:, 2:] - all_moved[:, :2]) >= 1).all(1)).tolist()
    masks = render_record_masks(record(height, width, boxes, polygons=polygons), kept.tolist(), crop)
    rows, columns = crop.visible_area(height, width)
    for box, mask in zip(moved, masks, strict=True):
        covered = mask.nonzero()
        if len(covered):
            (top, left), (bottom, right) = covered.amin(0).tolist(), (covered.amax(0) + 1).tolist()
            assert np.abs(np.array([left, top, right, bottom]) - box).max() <= 1
            assert rows.start <= top
            assert bottom <= rows.stop
            assert columns.start <= left
            assert right <= columns.stop
        else:
            assert polygons or (box[2:] - box[:2]).min() < 1.001, "what is a pixel large has the middle of one"


@pytest.mark.parametrize("resize", ["square", "shortest_side"])
def test_red_pixels_have_their_boxes(resize: Resize) -> None:
    resize_rule = ResizeRule(160, resize, None if resize == "square" else 200)
    augment = Augmentation(**{**ONLY, "flip": 0.5, "scale_jitter": (0.5, 2.0)})
    assert followed_rectangles(augment, resize_rule, tolerance=1.5) > 150


def test_it_replaces_other_crops_and_scales() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    others = {"zoom_out": 1.0, "zoom_out_max": 3.0, "iou_crop": 1.0, "scale_range": (0.3, 0.6)}
    boxes = np.array([[10, 10, 50, 50]], dtype=np.float32)
    for seed in range(20):
        plain, other = (
            Augmentation(**{**ONLY, **options}).augment_image(image, boxes, ResizeRule(64), np.random.default_rng(seed))
            for options in ({}, others)
        )
        assert torch.equal(plain.image, other.image)
        assert plain.crop == other.crop


def test_without_strong_augmentation_it_only_mirrors() -> None:
    augment, rng = Augmentation(**{**ONLY, "flip": 0.5}), np.random.default_rng(0)
    boxes = np.zeros((0, 4), dtype=np.float32)
    crops = [augment.draw_crop(300, 400, boxes, FITTED, rng, is_strong=False)[0] for _ in range(50)]
    assert {(crop.window, crop.input_size) for crop in crops} == {(Window.whole(300, 400), (384, 512))}
    assert {crop.flip_x for crop in crops} == {True, False}


def test_the_border_stays_black_when_colors_change() -> None:
    augment = Augmentation(**{**ONLY, "photometric": 1.0, "flip": 0.5, "scale_jitter": (0.3, 0.9)})
    image, boxes = np.full((60, 80, 3), 130, dtype=np.uint8), np.zeros((0, 4), dtype=np.float32)
    for seed in range(30):
        pixels, _, _, crop = augment.augment_image(image, boxes, ResizeRule(64), np.random.default_rng(seed))
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[crop.visible_area(60, 80)] = True
        assert not pixels[:, ~inside].any()
        assert pixels[:, inside].min() > 40


def test_training_batches_need_no_padding(drawn: Path) -> None:
    """All inputs are equal, also where evaluation keeps the aspect ratio; another step may have another size."""
    data = open_data(drawn, "train")
    sampler = BatchSampler(seed=0, num_samples=len(data.records), batch_size=4, num_steps=6, image_sizes=(32, 48))
    input_format = InputFormat(image_size=48, resize="shortest_side", max_size=72)
    loader = train_loader(
        data, augmentation=Augmentation(**ONLY), input_format=input_format, sampler=sampler, with_masks=True
    )
    shapes = set()
    for batch in loader:
        assert batch.padding_mask is None
        shapes.add(tuple(batch.images.shape))
        for target in batch.targets:
            assert target.masks is not None
            assert target.masks.shape == (len(target.labels), *batch.images.shape[2:])
    assert shapes == {(4, 3, 32, 32), (4, 3, 48, 48)}


@pytest.mark.parametrize("scales", [(0.0, 1.0), (2.0, 0.5), (0.5, float("inf")), (float("nan"), 1.0)])
def test_bad_scales(scales: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="scale_jitter is the least and the largest scale, greater than 0; got"):
        Augmentation(scale_jitter=scales)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scale_jitter": (0.5, 2.0), "size_crop": 0.5}, "scale_jitter and size_crop"),
        ({"resized_crop": (0.08, 1.0), "size_crop": 0.5}, "resized_crop and size_crop"),
        ({"scale_jitter": (0.5, 2.0), "resized_crop": (0.08, 1.0)}, "scale_jitter and resized_crop"),
    ],
)
def test_one_crop_at_a_time(options: dict[str, Any], named: str) -> None:
    with pytest.raises(
        ValueError, match=f"at most one of scale_jitter, resized_crop, size_crop can be on; got {named}"
    ):
        Augmentation(**options)
