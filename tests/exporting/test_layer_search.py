"""The search for layers that stay in float32: as few as are enough, in a bounded number of tries."""

from __future__ import annotations

import math

import pytest
from small_graphs import LAYERS, make_graph, make_inputs

from boxwright.exporting.half_precision import to_half
from boxwright.exporting.layer_errors import find_overflows, measure_onnx_layers
from boxwright.exporting.layer_search import LayerTry, search_layers

NAMES = [f"layer_{i}" for i in range(100)]


def search(needed: int, *, most_tries: int = 10, names: list[str] = NAMES) -> list[LayerTry[None]]:
    """Search where so many of the worst layers are enough."""
    return search_layers(names, lambda kept: LayerTry(kept, len(kept) >= needed, None), most_tries=most_tries)


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 12, 13, 40, 99, 100])
def test_the_fewest_that_are_enough(needed: int) -> None:
    tries = search(needed)
    good = [one for one in tries if one.is_good]
    assert good[-1].float32 == tuple(NAMES[:needed])
    assert len(good[-1].float32) == min(len(one.float32) for one in good)
    assert len({one.float32 for one in tries}) == len(tries) <= 10


@pytest.mark.parametrize("most_tries", [1, 2, 3, 4])
def test_tries_are_bounded(most_tries: int) -> None:
    assert len(search(3, most_tries=most_tries)) <= most_tries
    assert search(12, most_tries=1)[0].is_good


def test_where_nothing_helps() -> None:
    tries = search(101)
    assert not any(one.is_good for one in tries)
    assert tries[-1].float32 == tuple(NAMES)
    assert search_layers([], lambda kept: LayerTry(kept, True, None), most_tries=3) == []
    assert [one.float32 for one in search(1, names=["only"])] == [("only",)]


def test_overflow_is_where_it_begins() -> None:
    """All after it has an infinite error too, which is not its own."""
    model, inputs = make_graph(size=30_000.0), make_inputs(2)
    errors = measure_onnx_layers(model, to_half(model), LAYERS, inputs)
    assert math.isinf(errors["conv_1"])
    assert errors["conv_2"] == 0.0
    assert errors["linear"] < 1e-3
    assert find_overflows(model, to_half(model), inputs) == ["conv_1", "relu_1", "pool_1"]
    assert find_overflows(model, to_half(model, ["conv_1"]), inputs) == ["conv_2"]  # which reads them
    mended = to_half(model, ["conv_1", "conv_2"])
    assert find_overflows(model, mended, inputs) == []
    assert max(measure_onnx_layers(model, mended, LAYERS, inputs).values()) < 1e-3
