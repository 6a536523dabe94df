"""Sizes of objects in network inputs: worked out by hand, and the same as those of real samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.loading.sampler import SampleKey, augmentation_rng
from boxwright.data.loading.samples import TrainSet
from boxwright.data.size_survey import draw_objects, measure_scales, measure_sides, mending_size, thin_out
from boxwright.data.transforms.augment import Augmentation
from boxwright_runtime.input_format import InputFormat
from object_records import make_record, of_records

OFF = Augmentation(photometric=0.0, channel_shuffle=0.0, zoom_out=0.0, iou_crop=0.0, flip=0.0)


@pytest.mark.parametrize(("image_size", "side"), [(640, 10.0), (320, 5.0), (64, 1.0)])
def test_objects_of_10_pixels_at_640(image_size: int, side: float) -> None:
    data = of_records([make_record((640, 640), [(5, 5, 10, 30), (100, 100, 40, 10)])] * 3)
    sides = measure_sides(data, InputFormat(image_size=image_size))
    assert sides.sides.tolist() == [side] * 6
    assert sides.image_sides.tolist() == [10.0] * 6
    assert int(sides.below(8.0).sum()) == (0 if side == 10 else 6)
    assert int(sides.below(1.0).sum()) == 0


def test_the_shorter_side_is_that_of_the_stretched_part_inside_the_image() -> None:
    """Of 400 x 200 pixels a square of 200 keeps the height and halves the width; a crowd region does not count."""
    record = make_record((200, 400), [(380, 0, 40, 30), (0, 0, 50, 20), (0, 0, 9, 9)], [1, 0, 0], [False, False, True])
    sides = measure_sides(of_records([record], "a", "b"), InputFormat(image_size=224))
    assert sides.labels.tolist() == [1, 0]
    assert sides.sides.tolist() == pytest.approx([20 * 0.56, 20 * 1.12])
    assert sides.image_sides.tolist() == [20, 20]
    scales = measure_scales(of_records([record]), InputFormat(image_size=224))
    assert scales.tolist() == pytest.approx(np.array([[0.56, 1.12]]))


@pytest.mark.parametrize(
    "input_format",
    [
        InputFormat(image_size=320, resize="shortest_side", max_size=400),
        InputFormat(image_size=320, resize="letterbox"),
        InputFormat(image_size=320),
    ],
)
def test_the_size_that_mends_it_does(input_format: InputFormat) -> None:
    rng = np.random.default_rng(1)
    records = [
        make_record((480, 640), [(10.0, 10.0, *rng.uniform(2, 40, 2).tolist()) for _ in range(20)]) for _ in range(20)
    ]
    data = of_records(records)
    size = mending_size(measure_sides(data, input_format).sides, input_format.image_size)
    assert size is not None
    assert size % 32 == 0
    below = {at: measure_sides(data, input_format.at_size(at)).below(8.0).mean() for at in (size - 32, size)}
    assert below[size] <= 0.05 < below[size - 32]
    assert mending_size(measure_sides(data, input_format.at_size(size)).sides, size) is None


def test_no_size_is_needed_without_objects_or_for_a_twentieth() -> None:
    assert mending_size(np.zeros(0, np.float32), 320) is None
    assert mending_size(np.array([1.0] + [9.0] * 19, np.float32), 320) is None
    assert mending_size(np.array([4.0] * 2 + [9.0] * 18, np.float32), 320) == 640
    assert measure_sides(of_records([]), InputFormat()).sides.tolist() == []


def test_drawn_objects_are_those_of_training() -> None:
    """Every count agrees with the boxes that the augmentation itself returns for the same key."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(12):
        corners = rng.uniform(0, 180, (15, 2))
        boxes = np.concatenate((corners, rng.uniform(0.5, 20, (15, 2))), 1)
        records.append(
            make_record(
                (200, 240), [tuple(box) for box in boxes.tolist()], rng.integers(0, 2, 15).tolist(), None, number
            )
        )
    data = of_records(records, "a", "b")
    input_format, augmentation = InputFormat(image_size=96), Augmentation(zoom_out=0.7, iou_crop=0.7)
    keys = [SampleKey(i, epoch, 64, i % 3 > 0) for epoch in range(2) for i in range(12)]
    drawn = draw_objects(data, keys, augmentation, input_format, seed=5)
    left, small = np.zeros(2, int), np.zeros(2, int)
    for key in keys:
        record = records[key.record]
        result = augmentation.augment_image(
            np.zeros((200, 240, 3), np.uint8),
            record.boxes(),
            input_format.resize_rule(64),
            augmentation_rng(5, key),
            is_strong=key.is_strong,
        )
        labels = record.labels[result.indices]
        left += np.bincount(labels, minlength=2)
        small += np.bincount(labels[(result.boxes[:, 2:] - result.boxes[:, :2]).min(1) < 8], minlength=2)
    assert drawn.images == 24
    assert (drawn.total - drawn.cropped - drawn.too_small).tolist() == left.tolist()
    assert drawn.small.tolist() == small.tolist()
    assert min(drawn.cropped.tolist() + drawn.too_small.tolist()) > 0


def test_objects_of_mosaics_are_those_of_training(tmp_path: Path) -> None:
    """Each image has a class of its own: what training leaves of it is counted, unless a mosaic has it twice."""
    rng, records = np.random.default_rng(1), []
    for number in range(30):
        shape = (160 + 2 * number, 240 - 3 * number)
        boxes = np.concatenate((rng.uniform(0, 130, (12, 2)), rng.uniform(2, 30, (12, 2))), 1)
        record = make_record(shape, [tuple(box) for box in boxes.tolist()], [number] * 12, None, number)
        Image.new("RGB", shape[::-1]).save(tmp_path / f"{number}.png")
        records.append(replace(record, path=tmp_path / f"{number}.png"))
    data, input_format = of_records(records, *map(str, range(30))), InputFormat(image_size=96)
    augmentation = Augmentation(mosaic=0.7, zoom_out=0.5, iou_crop=0.5)
    samples = TrainSet(data, augmentation=augmentation, input_format=input_format, seed=5)
    equal = []
    for i in range(60):
        key = SampleKey(i % 30, i, 64, True, i % 4 > 0)
        drawn, sample = draw_objects(data, [key], augmentation, input_format, seed=5), samples[key]
        boxes = sample.boxes[sample.labels == key.record].numpy()
        left = drawn.total - drawn.cropped - drawn.too_small
        small = int(((boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) < 8).sum())
        equal.append((left[key.record], drawn.small[key.record]) == (len(boxes), small))
    assert sum(equal) >= 56


def test_objects_below_a_pixel_are_told_apart_from_cropped_ones() -> None:
    data = of_records([make_record((320, 320), [(0, 0, 9, 9), (50, 50, 20, 40), (99, 99, 2, 90)], [0, 1, 0])], "a", "b")
    drawn = draw_objects(data, [SampleKey(0, 0, 32)], OFF, InputFormat(image_size=32), 0)
    assert drawn.too_small.tolist() == [2, 0]
    assert drawn.cropped.tolist() == [0, 0]
    assert drawn.small.tolist() == [0, 1]


def test_thinning_out_is_even() -> None:
    data = of_records([make_record((9, 9), [], image_id=i) for i in range(100)])
    assert [record.image_id for record in thin_out(data, 4).records] == [0, 33, 66, 99]
    assert thin_out(data, 100) is data
