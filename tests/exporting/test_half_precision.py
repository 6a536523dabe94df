"""ONNX graphs in float16: products and what follows them; never boxes, and never what was to stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import LAYERS, kinds, make_graph, make_inputs, run_graph

from boxwright.exporting.half_precision import to_half
from boxwright.exporting.weighted_layers import find_trunk, list_layers

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def test_layers_and_what_they_depend_on() -> None:
    model = make_graph()
    assert [(layer.node, layer.name) for layer in list_layers(model)] == [(name, name) for name in LAYERS]
    trunk = find_trunk(model)
    assert {*LAYERS, "relu_1", "pool_1", "silu_2", "flat_2"} <= trunk
    assert trunk.isdisjoint({"scale_boxes", "add_anchor", "preprocessing/Mul"})


def test_products_and_what_follows_them() -> None:
    converted = to_half(make_graph())
    of_nodes = kinds(converted)
    for name in (*LAYERS, "relu_1", "pool_1", "gate_2", "silu_2", "mean_2", "flat_2"):
        assert of_nodes[name] == HALF, name
    for name in ("preprocessing/Mul", "scale_boxes", "add_anchor"):
        assert of_nodes[name] == FULL, name
    stored = {one.name: one.data_type for one in converted.graph.initializer}
    assert stored["conv_1.weight/fp16"] == HALF
    assert "conv_1.weight" not in stored
    assert (stored["anchor"], stored["preprocessing/scale"]) == (FULL, FULL)
    assert [one.key for one in converted.metadata_props] == ["boxwright"]


def test_boxes_are_near_and_further_than_float32s_precision() -> None:
    """They would be up to half a pixel off if the anchor were in half precision."""
    model = make_graph()
    (inputs,) = make_inputs(1)
    expected, boxes = run_graph(model, inputs), run_graph(to_half(model), inputs)
    assert 1e-4 < np.abs(boxes - expected).max() < 0.1


def test_what_stays_stays_and_what_follows_it_too() -> None:
    of_nodes = kinds(to_half(make_graph(), ["conv_2"]))
    assert [of_nodes[name] for name in ("conv_1", "pool_1", "conv_2", "gate_2", "silu_2")] == [HALF, HALF] + [FULL] * 3
    assert of_nodes["linear"] == HALF
    model = make_graph()
    (inputs,) = make_inputs(1)
    kept = to_half(model, [node.name for node in model.graph.node])
    np.testing.assert_array_equal(run_graph(kept, inputs), run_graph(model, inputs))


def test_a_constant_beyond_half_precision_keeps_its_layer() -> None:
    model = make_graph(spread=1e6)
    of_nodes = kinds(to_half(model))
    assert of_nodes["conv_1"] == FULL
    assert of_nodes["conv_2"] == HALF


def test_tensors_in_float32_are_not_rounded_on_the_way() -> None:
    """Half a map plus a table of positions is computed in float32, times a number in half precision."""
    node, rng = helper.make_node, np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "v": rng.normal(size=(2, 4, 1, 1)).astype(np.float32),
        "table": rng.normal(size=(1, 4, 1, 1)).astype(np.float32),
        "two": np.float32(2),
    }
    nodes = [
        node("Conv", ["x", "w"], ["a"], "first"),
        node("Mul", ["a", "two"], ["b"], "times_two"),
        node("Softmax", ["b"], ["c"], "softmax", axis=1),
        node("Add", ["b", "table"], ["d"], "add_table"),
        node("Sigmoid", ["b"], ["e"], "gate"),
        node("Mul", ["d", "e"], ["f"], "gated"),
        node("Add", ["f", "c"], ["g"], "sum"),
        node("Conv", ["g", "v"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FULL, [1, 3, 5, 6])],
        [
            helper.make_tensor_value_info("y", FULL, [1, 2, 5, 6]),
            helper.make_tensor_value_info("a", FULL, [1, 4, 5, 6]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    converted = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    onnx.checker.check_model(converted, full_check=True)
    of_nodes = kinds(converted)
    assert [of_nodes[name] for name in ("first", "times_two", "second")] == [HALF] * 3
    assert [of_nodes[name] for name in ("softmax", "add_table", "gate", "gated", "sum")] == [FULL] * 5
    assert [(one.name, one.type.tensor_type.elem_type) for one in converted.graph.output] == [("y", FULL), ("a", FULL)]


def test_tensors_that_inner_graphs_read_are_there_in_float32() -> None:
    node = helper.make_node
    inner = helper.make_graph(
        [node("Relu", ["a"], ["r"], "inner")], "then", [], [helper.make_tensor_value_info("r", FULL, None)]
    )
    other = helper.make_graph(
        [node("Neg", ["a"], ["n"], "other")], "else", [], [helper.make_tensor_value_info("n", FULL, None)]
    )
    nodes = [
        node("Conv", ["x", "w"], ["a"], "first"),
        node("If", ["c"], ["i"], "if", then_branch=inner, else_branch=other),
        node("Conv", ["i", "w"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", FULL, [1, 3, 4, 4]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", FULL, [1, 3, 4, 4])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "w")],
    )
    converted = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    import onnxruntime

    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    for condition, expected in ((True, np.maximum(x, 0)), (False, -x)):
        (y,) = session.run(None, {"x": x, "c": np.array(condition)})
        assert y == pytest.approx(expected, abs=2e-3)
