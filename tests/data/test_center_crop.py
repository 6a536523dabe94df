"""The central square that classifiers are evaluated on: torchvision's, wherever images become network inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from boxwright.data.crop import Crop
from boxwright.data.images import resample
from boxwright.data.loading.sampler import SampleKey
from boxwright.data.loading.samples import EvalSet, TrainSet
from boxwright.data.records import DetectionData, Record
from boxwright.data.transforms.augment import Augmentation
from boxwright.structures import Category
from boxwright_runtime.input_format import InputFormat, ResizeRule, Window

FORMAT = InputFormat(image_size=224, resize="center_crop")
PLAIN: dict[str, Any] = {"photometric": 0.0, "channel_shuffle": 0.0, "zoom_out": 0.0, "iou_crop": 0.0, "flip": 0.0}


def test_windows_by_hand() -> None:
    assert FORMAT.window(256, 256) == Window(16, 16, 240, 240)
    assert FORMAT.window(480, 640) == Window(110, 30, 530, 450)
    assert FORMAT.window(640, 480) == Window(30, 110, 450, 530)
    assert FORMAT.window(1, 1) == Window(0, 0, 1, 1)
    assert FORMAT.window(1, 9) == Window(4, 0, 5, 1)
    assert FORMAT.input_size(480, 640) == FORMAT.input_size(9, 1) == (224, 224)
    assert InputFormat(image_size=64).window(48, 70) == Window.whole(48, 70)
    assert InputFormat(image_size=64, resize="shortest_side").window(48, 70) == Window.whole(48, 70)


@settings(max_examples=300, deadline=None)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
def test_windows_are_torchvisions(height: int, width: int) -> None:
    """Each edge within a pixel of the image and one of the input; and a square inside the image."""
    x1, y1, x2, y2 = FORMAT.window(height, width)
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert x2 - x1 == y2 - y1
    resized = v2.functional.resize(torch.empty(1, height, width, device="meta"), [256]).shape[1:]
    for (start, stop), side, length in (((y1, y2), height, resized[0]), ((x1, x2), width, resized[1])):
        first, pixel = round((length - 224) / 2), side / length
        assert abs(start - first * pixel) <= 1 + pixel
        assert abs(stop - (first + 224) * pixel) <= 1 + pixel


@pytest.mark.parametrize(("height", "width"), [(480, 640), (375, 500), (640, 427), (100, 300), (256, 256)])
def test_inputs_look_like_torchvisions(height: int, width: int) -> None:
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = (127.5 + 120 * np.stack([np.sin(6 * x + 4 * y), np.cos(5 * x - 7 * y), np.sin(9 * y)], -1)).astype(np.uint8)
    theirs = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(torch.from_numpy(image).permute(2, 0, 1))
    ours = resample(image, FORMAT.window(height, width), 224, 224)
    difference = (ours.int() - theirs.int()).abs().float()
    assert difference.mean() < 2
    assert difference.max() <= 10


def made(path: Path, height: int, width: int) -> Record:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return Record(
        image_id=int(path.stem),
        path=path,
        height=height,
        width=width,
        labels=np.array([0], dtype=np.int64),
        bbox_xywh=np.array([[0.0, 0.0, width, height]]),
        area=np.array([float(width * height)]),
        crowd=np.zeros(1, dtype=bool),
        annotation_ids=(1,),
    )


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    shapes = [(60, 100), (100, 60), (80, 80)]
    records = tuple(made(tmp_path / f"{i}.png", *shape) for i, shape in enumerate(shapes))
    return DetectionData(records, (Category(1, "cat"),), tmp_path / "train.json")


def test_evaluation_and_plain_training_show_the_same(data: DetectionData) -> None:
    """And the box of a whole image is the whole input."""
    small = InputFormat(image_size=64, resize="center_crop")
    evaluated = EvalSet(data, input_format=small)
    trained = TrainSet(data, augmentation=Augmentation(**PLAIN), input_format=small, seed=0)
    weak = TrainSet(data, augmentation=Augmentation(flip=0.0), input_format=small, seed=0)
    for i, record in enumerate(data.records):
        image = np.asarray(Image.open(record.path))
        x1, y1, x2, y2 = map(int, small.window(record.height, record.width))
        part = np.ascontiguousarray(image[y1:y2, x1:x2])
        expected = resample(part, Window.whole(y2 - y1, x2 - x1), 64, 64)
        samples = evaluated[i], trained[SampleKey(i, 0, 64)], weak[SampleKey(i, 0, 64, is_strong=False)]
        for sample in samples:
            assert torch.equal(sample.image, expected)
            assert sample.boxes.tolist() == [[0, 0, 64, 64]]
            assert sample.image_id == record.image_id
            assert sample.size == (record.height, record.width, 64, 64)


def test_random_crops_start_from_the_square() -> None:
    """Zooming out goes beyond it, onto the rest of the image first; a crop around objects stays inside of it."""
    resize_rule, boxes = ResizeRule(64, "center_crop"), np.array([[30, 20, 60, 40]], dtype=np.float32)
    x1, y1, x2, y2 = resize_rule.window(60, 100)
    for seed in range(50):
        outer, _ = Augmentation(**{**PLAIN, "zoom_out": 1.0}).draw_crop(
            60, 100, boxes, resize_rule, np.random.default_rng(seed)
        )
        assert outer.window.x1 <= x1 < x2 <= outer.window.x2
        assert outer.window.y1 <= y1 < y2 <= outer.window.y2
        inner, _ = Augmentation(**{**PLAIN, "iou_crop": 1.0}).draw_crop(
            60, 100, boxes, resize_rule, np.random.default_rng(seed)
        )
        assert x1 <= inner.window.x1 < inner.window.x2 <= x2
        assert y1 <= inner.window.y1 < inner.window.y2 <= y2
        assert inner.input_size == outer.input_size == (64, 64)


def test_objects_beyond_the_square_are_dropped_in_training() -> None:
    boxes = np.array([[0, 0, 10, 60], [40, 20, 60, 40]], dtype=np.float32)
    image, resize_rule = np.zeros((60, 100, 3), dtype=np.uint8), ResizeRule(64, "center_crop")
    _, moved, kept, crop = Augmentation(**PLAIN).augment_image(image, boxes, resize_rule, np.random.default_rng(0))
    assert crop == Crop(resize_rule.window(60, 100), (64, 64))
    assert kept.tolist() == [1]
    assert moved.shape == (1, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "image_size must be a positive multiple of 32, not 100; nearest is 96"),
        ({"image_size": 224, "max_size": 256}, "max_size 256 needs resize shortest_side: a square has one size"),
    ],
)
def test_bad_sizes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputFormat(resize="center_crop", **options)
