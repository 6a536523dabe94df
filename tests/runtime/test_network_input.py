"""Network inputs in NumPy and Pillow against those of training and evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from boxwright.data.images import normalize, resample
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.network_input import make_network_input

SHAPES = [(480, 640), (97, 61), (720, 1280), (31, 33), (1, 50)]

FORMATS: dict[str, dict[str, Any]] = {
    "square": {"image_size": 320},
    "shortest side": {"image_size": 200, "resize": "shortest_side", "max_size": 333},
    "center crop": {"image_size": 224, "resize": "center_crop"},
    "letterbox": {"image_size": 256, "resize": "letterbox"},
    "mmdetection": {
        "image_size": 200,
        "resize": "shortest_side",
        "max_size": 333,
        "size_rule": "mmcv",
        "antialias": False,
    },
    "torchvision": {"image_size": 200, "resize": "shortest_side", "antialias": False, "resize_floats": True},
    "floats": {"image_size": 320, "resize_floats": True},
    "bgr": {"image_size": 320, "channel_order": "bgr"},
}

COLORS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def make_image(height: int, width: int, noise: int) -> np.ndarray:
    """A smooth image with noise of so many levels."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 100 * np.sin(x / 40 + c) * np.cos(y / 25 - c) for c in range(3)], axis=2)
    return (waves + rng.integers(-noise, noise + 1, waves.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("noise", [10, 255])
def test_is_that_of_training(name: str, shape: tuple[int, int], noise: int) -> None:
    """Bytes with antialiasing are within a level, 2 % of them off at all; all others are closer."""
    plain = InputFormat(**FORMATS[name])
    image = make_image(*shape, noise)
    expected = resample(image, plain.window(*shape), *plain.input_size(*shape), resampling=plain.resampling)
    levels = make_network_input(image, plain) * 255
    difference = np.abs(levels - normalize(expected, plain).numpy() * 255)
    if plain.antialias and not plain.resize_floats:
        assert difference.max() <= 1.001
        assert (difference > 0.5).mean() < 0.02
    else:
        assert difference.max() < 0.05
    colored = InputFormat(**FORMATS[name], **COLORS)
    if name == "mmdetection":  # whose bytes are the same: so are all numbers
        assert np.array_equal(make_network_input(image, colored), normalize(expected, colored).numpy())
    step = 1 / 255 / min(COLORS["std"])
    assert np.abs(make_network_input(image, colored) - normalize(expected, colored).numpy()).max() < 1.01 * step
