"""The preprocessing of exported files gives the pixels and sizes of data.images, in both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from PIL import Image
from runtimes import RUNTIMES, start

from boxwright.data.images import normalize, resample
from boxwright.exporting.openvino import OPENVINO_OPTIONS, to_openvino
from boxwright.exporting.preprocessing import NODE_PREFIX, preprocessing_graph
from boxwright_runtime.images import read_image
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.sessions import keep_core

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data"

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

FORMATS = {
    "square": InputFormat(image_size=160),
    "square_of_floats": InputFormat(image_size=160, resize_floats=True, mean=MEAN, std=STD),
    "square_as_opencv": InputFormat(image_size=160, antialias=False, channel_order="bgr", mean=MEAN),
    "nearest_four": InputFormat(image_size=160, antialias=False, resize_floats=True, std=STD),
    "detr": InputFormat(image_size=120, max_size=200, resize="shortest_side", mean=MEAN, std=STD),
    "transformers": InputFormat(image_size=120, resize="shortest_side", size_rule="transformers"),
    "torchvision": InputFormat(
        image_size=120,
        max_size=200,
        resize="shortest_side",
        size_rule="torchvision",
        antialias=False,
        resize_floats=True,
        pad_multiple=32,
    ),
    "mmcv": InputFormat(image_size=120, max_size=200, resize="shortest_side", size_rule="mmcv", antialias=False),
    "center_crop": InputFormat(image_size=96, resize="center_crop", mean=MEAN, std=STD, channel_order="bgr"),
    "letterbox": InputFormat(image_size=128, resize="letterbox", mean=MEAN, std=STD),
}

SIZES = [(97, 131), (320, 320), (241, 65), (160, 160), (33, 300), (1, 1), (7, 60)]
"""Odd ones, one that is halved, one that stays as it is, thin ones, and those that become larger."""

LEVEL = 1.01
"""One gray level, and what float32 loses on the way."""


def preprocess(image: np.ndarray, input_format: InputFormat) -> tuple[np.ndarray, tuple[int, ...]]:
    """Make the network input and the sizes of an image as prediction does."""
    height, width = image.shape[:2]
    size = input_format.input_size(height, width)
    pixels = resample(image, input_format.window(height, width), *size, resampling=input_format.resampling)
    return normalize(pixels, input_format).numpy(), (height, width, *size)


def gray_levels(difference: np.ndarray, input_format: InputFormat) -> np.ndarray:
    """Convert differences of network inputs to gray levels of 255."""
    order = slice(None, None, -1 if input_format.channel_order == "bgr" else 1)
    return np.abs(difference) * 255 * np.array(input_format.std)[order, None, None]


def draw_noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def draw_gradients(height: int, width: int) -> np.ndarray:
    """Draw an image as smooth as a photograph."""
    return np.asarray(Image.fromarray(draw_noise(height // 8 + 2, width // 8 + 2)).resize((width, height), 3))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", FORMATS)
def test_pixels_and_sizes(name: str, runtime: str) -> None:
    input_format = FORMATS[name]
    run = start(preprocessing_graph(input_format), runtime)
    for size in SIZES:
        for image in (draw_noise(*size), draw_gradients(*size)):
            expected, image_size = preprocess(image, input_format)
            outputs = run({"images": image[None]})
            assert outputs["sizes"].tolist() == [list(image_size)]
            assert outputs["network_input"].dtype == np.float32
            assert outputs["network_input"].shape == (1, *expected.shape)
            levels = gray_levels(outputs["network_input"][0] - expected, input_format)
            assert levels.max() <= (0.1 if input_format.resize_floats else LEVEL), size


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("image_size", "size"), [(352, (2161, 1003)), (96, (33, 2100)), (992, (3, 5))])
def test_sides_that_change_by_much(image_size: int, size: tuple[int, int], runtime: str) -> None:
    """More rows of the output than a block has, and of the input for each of them."""
    input_format = InputFormat(image_size=image_size, resize_floats=True)
    image = draw_noise(*size)
    expected, _ = preprocess(image, input_format)
    outputs = start(preprocessing_graph(input_format), runtime)({"images": image[None]})
    levels = gray_levels(outputs["network_input"][0] - expected, input_format)
    assert levels.max() <= 0.02


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("image_size", [203, 650])
def test_photographs(image_size: int, runtime: str) -> None:
    """Downsampled and upsampled."""
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"no photographs in {PHOTOGRAPHS}")
    input_format = InputFormat(image_size=image_size, max_size=image_size, resize="shortest_side")
    run = start(preprocessing_graph(input_format), runtime)
    photographs = sorted((PHOTOGRAPHS / "coco_mini").rglob("*.jpg"))[:2]
    assert photographs
    for path in photographs:
        expected, sizes = preprocess(image := read_image(path), input_format)
        outputs = run({"images": image[None]})
        assert outputs["sizes"].tolist() == [list(sizes)]
        levels = gray_levels(outputs["network_input"][0] - expected, input_format)
        assert np.mean(levels <= LEVEL) >= 0.999
        assert levels.mean() < 0.25


def test_halved_bytes_are_opencvs() -> None:
    image, input_format = draw_noise(192, 192), InputFormat(image_size=96, antialias=False)
    expected, _ = preprocess(image, input_format)
    outputs = start(preprocessing_graph(input_format), "onnxruntime")({"images": image[None]})
    np.testing.assert_allclose(outputs["network_input"][0], expected, atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["square", "torchvision", "center_crop", "letterbox"])
def test_an_image_does_not_depend_on_its_batch(name: str, runtime: str) -> None:
    run = start(preprocessing_graph(FORMATS[name]), runtime)
    images = np.stack([draw_gradients(90, 131), draw_noise(90, 131), draw_gradients(90, 131)[::-1]])
    together = run({"images": images})
    for index, image in enumerate(images):
        alone = run({"images": image[None]})
        np.testing.assert_array_equal(together["network_input"][index], alone["network_input"][0])
        np.testing.assert_array_equal(together["sizes"][index], alone["sizes"][0])


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (320, 480)])
def test_halves_are_rounded_alike(size: tuple[int, int]) -> None:
    """Half gray levels are frequent at simple ratios, and both runtimes come to them in ways of their own."""
    graph, image = preprocessing_graph(InputFormat(image_size=160)), draw_noise(*size)[None]
    fixed = to_openvino(graph)
    fixed.reshape({"images": image.shape})
    runs = [start(graph, runtime) for runtime in RUNTIMES]
    free, other = (run({"images": image})["network_input"] for run in runs)
    known = keep_core(openvino).compile_model(fixed, "CPU", OPENVINO_OPTIONS)({"images": image})["network_input"]
    for actual in (other, known):
        assert np.mean(np.abs(actual - free) > 0.002) <= 1e-5


def test_sizes_and_pixels_are_right_in_bfloat16() -> None:
    """So are they where OpenVINO computes in bfloat16, its default on many CPUs."""
    # bfloat16 holds whole numbers up to 256.
    input_format = InputFormat(image_size=200, max_size=333, resize="shortest_side", size_rule="torchvision")
    run = start(preprocessing_graph(input_format), "openvino", {"INFERENCE_PRECISION_HINT": "bf16"})
    random = np.random.default_rng(0)
    for size in random.integers(20, 700, (20, 2)):
        expected, image_size = preprocess(image := draw_noise(*size), input_format)
        outputs = run({"images": image[None]})
        assert outputs["sizes"].tolist() == [list(image_size)]
        assert outputs["network_input"].shape[1:] == expected.shape
        assert gray_levels(outputs["network_input"][0] - expected, input_format).max() <= LEVEL


def test_names_begin_alike() -> None:
    graph = preprocessing_graph(FORMATS["torchvision"]).graph
    assert all(node.name.startswith(NODE_PREFIX) for node in graph.node)
    assert all(constant.name.startswith(NODE_PREFIX) for constant in graph.initializer)


def test_the_order_of_channels() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[..., 0] = 255
    rgb, bgr = (
        start(preprocessing_graph(InputFormat(image_size=32, channel_order=order)), "onnxruntime")(
            {"images": image[None]}
        )["network_input"][0]
        for order in ("rgb", "bgr")
    )
    assert torch.from_numpy(rgb).mean((1, 2)).tolist() == pytest.approx([1, 0, 0])
    assert torch.from_numpy(bgr).mean((1, 2)).tolist() == pytest.approx([0, 0, 1])
