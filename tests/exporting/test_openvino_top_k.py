"""The largest values in OpenVINO are those of a stable sort, in whatever precision the rest is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest

from boxwright.exporting.openvino import OPENVINO_OPTIONS
from boxwright.exporting.openvino_top_k import write_stable_top_k
from boxwright_runtime.sessions import keep_core

TopK = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def compile_top_k(folder: Path, k: int, options: dict[str, str], factor: float | None = None) -> TopK:
    """Compile it, of values times a factor where there is one, from a file."""
    opset = openvino.opset11
    values = opset.parameter([-1, -1, -1], np.float32)
    scaled = (
        values if factor is None else opset.matmul(values, opset.constant(np.full((1, 1), factor, np.float32)), 0, 0)
    )
    flat = scaled if factor is None else opset.squeeze(scaled, opset.constant([2]))
    outputs = write_stable_top_k(openvino, flat.output(0), opset.constant(np.int64(k)), prefix="best")
    openvino.save_model(openvino.Model(list(outputs), [values], "best"), folder / "best.xml", compress_to_fp16=False)
    core = keep_core(openvino)
    compiled = core.compile_model(core.read_model(folder / "best.xml"), "CPU", options)
    return lambda array: tuple(compiled(array)[index] for index in range(2))  # type: ignore[return-value]


def sort(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    indices = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(values, indices, -1), indices


@pytest.mark.parametrize("levels", [1, 2, 30, 0], ids=["all equal", "two values", "many ties", "none"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 7), (7, 1), (400, 300), (30_000, 1_000), (6_000, 5_000)])
def test_equal_values_keep_their_order(tmp_path: Path, n: int, k: int, levels: int) -> None:
    top_k, random = compile_top_k(tmp_path, k, OPENVINO_OPTIONS), np.random.default_rng(n)
    for _ in range(2):
        draws = random.integers(0, levels, (2, 3, n)) / levels if levels else random.standard_normal((2, 3, n))
        values = draws.astype(np.float32)
        values[0, 0, n // 2 :] = -np.inf
        for actual, expected in zip(top_k(values), sort(values, k), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_values_of_bfloat16(tmp_path: Path) -> None:
    """After a product in bfloat16 there are many ties, and comparisons are of the values that are sorted."""
    n, k = 5_000, 300
    top_k = compile_top_k(tmp_path, k, {"INFERENCE_PRECISION_HINT": "bf16"}, factor=1.0)
    values = np.random.default_rng(0).random((2, n), dtype=np.float32)
    best, indices = top_k(values[..., None])
    for row in range(2):
        rounded = best[row]
        assert len(set(indices[row].tolist())) == k
        assert (np.diff(rounded) <= 0).all()
        assert (np.diff(indices[row])[np.diff(rounded) == 0] > 0).all()
        np.testing.assert_allclose(rounded, values[row, indices[row]], rtol=2**-8)
        assert np.sort(values[row])[-k] <= rounded.min() * (1 + 2**-7)
