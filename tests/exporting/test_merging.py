"""Preprocessing before a network: one graph that computes what both compute in a row."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from runtimes import RUNTIMES, start

from boxwright.exporting.graph_writer import IR_VERSION, OPSET
from boxwright.exporting.merging import extract_preprocessing, merge
from boxwright.exporting.openvino import to_openvino
from boxwright.exporting.preprocessing import NODE_PREFIX, preprocessing_graph
from boxwright_runtime.input_format import InputFormat

FORMAT = InputFormat(image_size=64, resize="shortest_side", mean=(0.5, 0.5, 0.5))


def make_network(inputs: tuple[str, str] = ("images", "sizes"), version: int = OPSET) -> onnx.ModelProto:
    """Make a network that sums its input, with a value that is called like the network input, and a graph inside."""
    info = helper.make_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("ReduceMean", ["images"], [name], keepdims=0)],
            name,
            [],
            [info(name, TensorProto.FLOAT, [])],
        )
        for name in ("then", "else")
    }
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["network_input"], name="sum", keepdims=0),
        helper.make_node("Identity", ["network_input"], ["total"], name="total"),
        helper.make_node("If", ["always"], ["mean"], name="if", **branches),
        helper.make_node("Identity", ["sizes"], ["again"], name="again"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [
            info(inputs[0], TensorProto.FLOAT, ["batch", 3, "h", "w"]),
            info(inputs[1], TensorProto.INT64, ["batch", 4]),
        ],
        [
            info("total", TensorProto.FLOAT, []),
            info("mean", TensorProto.FLOAT, []),
            info("again", TensorProto.INT64, ["batch", 4]),
        ],
        [helper.make_tensor("always", TensorProto.BOOL, [], [True])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=IR_VERSION)
    model.metadata_props.add(key="kept", value="yes")
    return model


def test_a_merged_graph_computes_both() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 90, 70, 3), dtype=np.uint8)
    network, preprocessing = make_network(), preprocessing_graph(FORMAT)
    merged = merge(preprocessing, network)
    onnx.checker.check_model(merged, full_check=True)
    between = start(preprocessing, "onnxruntime")({"images": images})
    outputs = start(merged, "onnxruntime")({"images": images})
    assert outputs["total"] == pytest.approx(between["network_input"].sum(), rel=1e-4)
    assert outputs["mean"] == pytest.approx(between["network_input"].mean(), rel=1e-4)
    np.testing.assert_array_equal(outputs["again"], [[90, 70, 82, 64]] * 2)
    assert [value.name for value in network.graph.input] == ["images", "sizes"], "the network stays as it is"
    assert [value.name for value in merged.graph.input] == ["images"]
    assert merged.metadata_props[0].value == "yes"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_preprocessing_comes_out_again(runtime: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 90, 70, 3), dtype=np.uint8)
    preprocessing = preprocessing_graph(FORMAT)
    part = extract_preprocessing(merge(preprocessing, make_network()))
    expected, outputs = (start(model, runtime)({"images": images}) for model in (preprocessing, part))
    for name in ("network_input", "sizes"):
        np.testing.assert_array_equal(outputs[name], expected[name])


def test_a_network_has_no_preprocessing_to_take_out() -> None:
    with pytest.raises(ValueError, match="it has no preprocessing"):
        extract_preprocessing(make_network())


def test_other_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="inputs images and sizes, not pixels, sizes"):
        merge(preprocessing_graph(FORMAT), make_network(inputs=("pixels", "sizes")))


def test_other_versions_are_refused() -> None:
    with pytest.raises(ValueError, match="version 20 of ONNX, the network in 18"):
        merge(preprocessing_graph(FORMAT), make_network(version=18))


def make_ties(antialias: int) -> onnx.ModelProto:
    """Make a graph with the two operators that OpenVINO converts wrongly."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("TopK", ["scores", "k"], ["best", "order"], name="best", axis=1),
        helper.make_node(
            "Resize",
            ["images", "", "", "size"],
            ["resized"],
            name=f"{NODE_PREFIX}resize",
            mode="linear",
            antialias=antialias,
            exclude_outside=1,
            axes=[1, 2],
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "ties",
        [info("scores", TensorProto.FLOAT, ["b", "n"]), info("images", TensorProto.FLOAT, ["b", "h", "w", 3])],
        [
            info("best", TensorProto.FLOAT, ["b", 400]),
            info("order", TensorProto.INT64, ["b", 400]),
            info("resized", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor("k", TensorProto.INT64, [1], [400]),
            helper.make_tensor("size", TensorProto.INT64, [2], [20, 30]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def test_openvino_keeps_the_order_of_ties_and_antialiasing() -> None:
    random = np.random.default_rng(0)
    inputs = {
        "scores": random.integers(0, 20, (2, 3000)).astype(np.float32),
        "images": random.random((1, 91, 200, 3), dtype=np.float32),
    }
    model = make_ties(antialias=1)
    expected, outputs = (start(model, runtime)(inputs) for runtime in RUNTIMES)
    np.testing.assert_array_equal(outputs["order"], expected["order"])
    np.testing.assert_array_equal(outputs["best"], expected["best"])
    np.testing.assert_allclose(outputs["resized"], expected["resized"], atol=1e-5)


def test_openvino_resizes_by_itself_without_antialiasing_alone() -> None:
    modes = [
        [
            node.get_attributes()["mode"]
            for node in to_openvino(make_ties(antialias)).get_ops()
            if node.get_type_name() == "Interpolate"
        ]
        for antialias in (0, 1)
    ]
    assert modes == [["linear_onnx"], []]
