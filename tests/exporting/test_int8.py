"""Graphs in int8, in onnxruntime and in OpenVINO: which nodes are quantized, and how near the results are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from small_graphs import LAYERS, make_graph, make_inputs, run_graph

from boxwright.exporting.graph_writer import IR_VERSION, OPSET
from boxwright.exporting.layer_errors import measure_onnx_layers, measure_openvino_layers
from boxwright.exporting.onnx_int8 import OnnxQuantizer, list_fixed_nodes
from boxwright.exporting.openvino import OPENVINO_OPTIONS, to_openvino
from boxwright.exporting.openvino_precision import (
    compress_weights,
    list_openvino_layers,
    list_outer_nodes,
    list_quantized_nodes,
    quantize_openvino,
)
from boxwright_runtime.sessions import keep_core

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def run_openvino(model: Any, inputs: dict[str, np.ndarray]) -> Any:
    import openvino

    return keep_core(openvino).compile_model(model, "CPU", OPENVINO_OPTIONS)(inputs)["boxes"]


def quantized_inputs(model: onnx.ModelProto) -> set[str]:
    """Names of nodes that read what was quantized."""
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    return {
        node.name
        for node in model.graph.node
        if any(made.get(name) == "DequantizeLinear" for name in node.input)
        and node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    }


def make_two_stages() -> onnx.ModelProto:
    """Make a graph with a convolution that proposes boxes, and a layer that reads what is in them."""
    random = np.random.default_rng(0)
    shapes = {"w_features": (8, 3, 3, 3), "w_proposals": (4, 8, 1, 1), "w_linear": (32, 5)}
    numbers = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    numbers |= {"first": np.array([0, 1]), "rest": np.array([2, 3]), "image": np.array([0, 0])}
    graph = onnx.parser.parse_graph("""
        two_stages (float[1, 3, 16, 16] images) => (float[2, 5] outputs) {
            [features] maps = Conv <pads = [1, 1, 1, 1]> (images, w_features)
            [proposals] deltas = Conv (maps, w_proposals)
            [move] rows = Transpose <perm = [0, 2, 3, 1]> (deltas)
            [flatten] boxes = Flatten <axis = 3> (rows)
            [choose] best = Gather (boxes, first)
            [corners] corners = Gather <axis = 1> (best, first)
            [sides] sides = Gather <axis = 1> (best, rest)
            [add] ends = Add (corners, sides)
            [put_together] regions = Concat <axis = 1> (corners, ends)
            [pool] pooled = RoiAlign <output_height = 2, output_width = 2> (maps, regions, image)
            [flat] flattened = Flatten (pooled)
            [linear] outputs = MatMul (flattened, w_linear)
        }""")
    graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in numbers.items())
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


class TestOnnx:
    def test_layers_are_quantized_and_nothing_else_is(self) -> None:
        model = make_graph()
        before = model.SerializeToString()
        converted = OnnxQuantizer(model, make_inputs(8)).convert()
        onnx.checker.check_model(converted, full_check=True)
        assert set(LAYERS) <= quantized_inputs(converted)
        assert quantized_inputs(converted).isdisjoint({"preprocessing/Mul", "scale_boxes", "add_anchor", "mean_2"})
        assert [(one.key, one.value) for one in converted.metadata_props] == [("boxwright", "{}")]
        assert model.SerializeToString() == before
        for inputs in make_inputs(3, seed=5):
            assert np.abs(run_graph(converted, inputs) - run_graph(model, inputs)).max() < 1

    def test_what_stays_in_float32(self) -> None:
        quantizer = OnnxQuantizer(make_graph(), make_inputs(4))
        model, (inputs,) = make_graph(), make_inputs(1, seed=5)
        kept = quantizer.convert(["conv_2"])
        onnx.checker.check_model(kept, full_check=True)
        assert "conv_2" not in quantized_inputs(kept)
        assert "conv_2" in quantized_inputs(quantizer.convert())
        assert [node.op_type for node in kept.graph.node if node.name == "relu_1"] == ["Relu"]
        assert np.abs(run_graph(kept, inputs) - run_graph(model, inputs)).max() < 1
        np.testing.assert_array_equal(run_graph(quantizer.convert(LAYERS), inputs), run_graph(model, inputs))

    def test_convolutions_that_predict_stay(self) -> None:
        model = make_graph()
        assert "conv_2" not in list_fixed_nodes(model)
        end = next(i for i, node in enumerate(model.graph.node) if node.name == "linear")
        del model.graph.node[end:]
        assert "conv_2" in list_fixed_nodes(model)
        assert "conv_1" not in list_fixed_nodes(model)

    def test_proposals_stay(self) -> None:
        """Of a model of two stages: 256 values would be whole pixels for the second one to look at."""
        model = make_two_stages()
        assert list_fixed_nodes(model) == ["proposals", "move", "put_together"]
        images = [{"images": np.random.default_rng(seed).random((1, 3, 16, 16), dtype=np.float32)} for seed in range(4)]
        converted = OnnxQuantizer(model, images).convert()
        assert quantized_inputs(converted) == {"features", "proposals", "pool", "linear"}, "three of them read features"

    def test_the_layer_with_one_wide_channel_has_the_largest_error(self) -> None:
        model, inputs = make_graph(spread=1000.0), make_inputs(8)
        errors = measure_onnx_layers(model, OnnxQuantizer(model, inputs).convert(), LAYERS, inputs[:3])
        assert next(iter(errors)) == "conv_2"  # whose input has one scale for all channels
        assert errors["conv_2"] > 10 * errors["conv_1"]


class TestOpenVINO:
    def test_layers_are_quantized_and_boxes_are_not(self) -> None:
        model = to_openvino(make_graph())
        quantized = quantize_openvino(model, make_inputs(8))
        nodes = list_quantized_nodes(quantized)
        assert set(list_openvino_layers(model)) <= set(nodes)
        assert {"scale_boxes", "boxes"} <= set(list_outer_nodes(model))
        assert set(nodes).isdisjoint(list_outer_nodes(model))
        assert not [name for name in nodes if name.startswith("preprocessing/")]
        assert not list_quantized_nodes(model)
        for inputs in make_inputs(3, seed=5):
            assert np.abs(run_openvino(quantized, inputs) - run_openvino(model, inputs)).max() < 1

    def test_what_stays_in_float32(self) -> None:
        model = to_openvino(make_graph())
        first, second, _ = list_openvino_layers(model)
        nodes = list_quantized_nodes(quantize_openvino(model, make_inputs(4), [second]))
        assert second not in nodes
        assert first in nodes

    def test_errors_of_layers(self) -> None:
        model, inputs = to_openvino(make_graph()), make_inputs(8)
        quantized = quantize_openvino(model, inputs)
        errors = measure_openvino_layers(model, quantized, list_quantized_nodes(quantized), inputs[:2])
        assert set(list_openvino_layers(model)) <= set(errors)
        assert list(errors.values()) == sorted(errors.values(), reverse=True)
        assert 1e-4 < max(errors.values()) < 0.1

    def test_weights_in_half_precision(self) -> None:
        model, (inputs,) = to_openvino(make_graph()), make_inputs(1)
        first, second, third = list_openvino_layers(model)
        expected = run_openvino(model, inputs)
        compress_weights(model, [second])
        kinds = {tuple(node.shape): node.get_element_type().get_type_name() for node in constants(model)}
        assert [kinds[shape] for shape in ((8, 3, 3, 3), (16, 8, 3, 3), (16, 4), (1, 4))] == [
            "f16",
            "f32",
            "f16",
            "f32",
        ]
        errors = measure_openvino_layers(to_openvino(make_graph()), model, [first, second, third], [inputs])
        assert errors[second] == 0.0
        assert min(errors[first], errors[third]) > 1e-5
        assert 0 < np.abs(run_openvino(model, inputs) - expected).max() < 0.1

    def test_weights_beyond_half_precision_stay(self) -> None:
        model = to_openvino(make_graph(size=1e6))
        compress_weights(model)
        kinds = {tuple(node.shape): node.get_element_type().get_type_name() for node in constants(model)}
        assert (kinds[8, 3, 3, 3], kinds[16, 8, 3, 3]) == ("f32", "f16")


def constants(model: Any) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]


@pytest.mark.parametrize("quantize", [lambda: OnnxQuantizer(make_graph(), []), lambda: quantize_openvino(None, [])])
def test_without_images(quantize: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"int8 needs images .* give --calibrate DATA"):
        quantize()
