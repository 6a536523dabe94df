"""Sizes in a graph are those of boxwright_runtime.size_rules, to the pixel, in both runtimes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import onnx
import pytest
from runtimes import RUNTIMES, start

from boxwright.exporting.exact_arithmetic import divide, divide_product
from boxwright.exporting.graph_writer import GraphWriter, Value
from boxwright.exporting.input_sizes import write_center_window, write_input_size
from boxwright_runtime.input_format import InputFormat

LARGEST = 8192
COUNT = 12_000

SHORTEST_SIDE = [
    InputFormat(resize="shortest_side", image_size=image_size, max_size=max_size, size_rule=rule)
    for rule in ("detr", "transformers", "torchvision", "mmcv")
    for image_size, max_size in ((800, 1333), (800, None), (512, 1023), (640, 640), (333, 1000), (1, 1))
]
LETTERBOX = [InputFormat(resize="letterbox", image_size=size) for size in (512, 640, 1536, 96)]

Formula = Callable[[Value, Value], tuple[Value, ...]]


def evaluate(formula: Formula, runtime: str, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Compute a formula of heights and widths in a runtime: one row of results for each."""
    writer = GraphWriter("sizes/")
    results = formula(writer.value("height"), writer.value("width"))
    for index, result in enumerate(results):
        # Sums, so that constants have as many rows as all others.
        writer.add("Add", result, writer.value("height") * 0, output=f"result_{index}")
    names = [f"result_{index}" for index in range(len(results))]
    info = onnx.helper.make_tensor_value_info
    model = writer.finish(
        "sizes",
        [info(name, onnx.TensorProto.FLOAT, ["n", 1]) for name in ("height", "width")],
        [info(name, onnx.TensorProto.FLOAT, ["n", 1]) for name in names],
    )
    columns = {"height": heights.astype(np.float32)[:, None], "width": widths.astype(np.float32)[:, None]}
    outputs = start(model, runtime)(columns)
    return np.concatenate([outputs[name] for name in names], axis=1)


def draw_sizes(count: int = COUNT, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw heights and widths of images: any, and those with a simple ratio, where results are whole."""
    random = np.random.default_rng(seed)
    anything = np.exp(random.uniform(0, np.log(LARGEST), (2, count // 2)))
    factors = random.integers(1, 400, count - count // 2)
    simple = factors * random.integers(1, 41, (2, len(factors)))
    heights, widths = np.concatenate([anything, simple], axis=1).astype(int).clip(1, LARGEST)
    return heights, widths


def name_format(input_format: InputFormat) -> str:
    rule = input_format.size_rule if input_format.resize == "shortest_side" else input_format.resize
    return f"{rule}-{input_format.image_size}-{input_format.max_size}"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("input_format", [*SHORTEST_SIDE, *LETTERBOX], ids=name_format)
def test_input_sizes(input_format: InputFormat, runtime: str) -> None:
    heights, widths = draw_sizes()
    expected = np.array([input_format.input_size(*map(int, size)) for size in zip(heights, widths, strict=True)])
    sizes = evaluate(lambda height, width: write_input_size(height, width, input_format), runtime, heights, widths)
    np.testing.assert_array_equal(sizes, expected)


@pytest.mark.parametrize("input_format", [SHORTEST_SIDE[6], SHORTEST_SIDE[12], SHORTEST_SIDE[20], LETTERBOX[0]])
def test_doubles_round_some_of_these_sizes_down(input_format: InputFormat) -> None:
    """Arithmetic without rounding would differ: these sizes can tell."""
    half = Fraction(input_format.size_rule == "mmcv", 2)
    count = 0
    for height, width in zip(*draw_sizes(), strict=True):
        short, long = sorted((int(height), int(width)))
        limit = input_format.max_size or input_format.image_size
        scale = min(Fraction(input_format.image_size, short), Fraction(limit, long))
        exact = tuple(max(1, math.floor(side * scale + half)) for side in (short, long))
        count += exact != input_format.input_size(short, long) and long * scale < 2**20
    assert count > 20


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_center_window(runtime: str) -> None:
    heights, widths = draw_sizes()
    input_format = InputFormat(resize="center_crop", image_size=224)
    windows = [input_format.window(int(height), int(width)) for height, width in zip(heights, widths, strict=True)]
    results = evaluate(write_center_window, runtime, heights, widths)
    np.testing.assert_array_equal(results, [(window.y1, window.x1, window.y2 - window.y1) for window in windows])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_division(runtime: str) -> None:
    """Quotients just below a whole number are where float32 rounds up."""
    random = np.random.default_rng(0)
    divisors = random.integers(1, 2**15, 5000)
    quotients = random.integers(0, 2**15, 5000) % (2**24 // divisors)
    dividends = (divisors * quotients + random.choice([0, 1, -1], 5000)).clip(0)
    results = evaluate(lambda dividend, divisor: divide(dividend, divisor), runtime, dividends, divisors)
    np.testing.assert_array_equal(results, np.stack(np.divmod(dividends, divisors), axis=1))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_division_of_products(runtime: str) -> None:
    random = np.random.default_rng(0)
    factors, divisors = random.integers(1, 2**15 + 1, (2, 5000))
    results = evaluate(
        lambda factor, divisor: divide_product(factor, factor.writer.constant([[1333.0]]), divisor),
        runtime,
        factors,
        divisors,
    )
    quotients, remainders = np.divmod(factors * 1333, divisors)
    is_exact = quotients < 2**24
    np.testing.assert_array_equal(results[is_exact], np.stack([quotients, remainders], axis=1)[is_exact])
    assert is_exact.mean() > 0.99
