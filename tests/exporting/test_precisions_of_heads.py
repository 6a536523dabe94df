"""Every head in float16 and int8: the converted graph runs, and detects what the one in float32 does, or nearly so."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from graph_checks import make_inputs
from test_exported_parts import HEADS

from boxwright.compose.parts import list_parts
from boxwright.detector import Detector
from boxwright.exporting.comparison import Tolerance, compare_images, read_outputs
from boxwright.exporting.graph import export_network
from boxwright.exporting.half_precision import to_half
from boxwright.exporting.layer_errors import measure_onnx_layers
from boxwright.exporting.onnx_int8 import OnnxQuantizer
from boxwright.exporting.openvino import OPENVINO_OPTIONS, to_openvino
from boxwright.exporting.openvino_precision import compress_weights, quantize_openvino
from boxwright.exporting.weighted_layers import list_layers
from boxwright_runtime.sessions import keep_core
from part_checks import composed
from random_weights import settle, shake

Arrays = dict[str, np.ndarray]

NEAR = Tolerance(box=0.04, score=0.04, mask=0.04, fraction=0.3)
"""Weights are random, and many scores all but equal: most detections have to stay, not all."""


def run_onnx(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_openvino(model: openvino.Model, inputs: Arrays) -> Arrays:
    compiled = keep_core(openvino).compile_model(model, "CPU", OPENVINO_OPTIONS)
    return {
        one.any_name: np.array(value) for one, value in zip(compiled.outputs, compiled(inputs).values(), strict=True)
    }


def build(head: str) -> tuple[Detector, list[Arrays]]:
    backbone, necks, input_format = HEADS.get(head, ("resnet", ["fpn"], HEADS["fcos"][2]))
    detector = composed(backbone, necks, head, 3)
    detector.input_format = input_format
    size = (160, 160) if input_format.resize in ("square", "center_crop") else (128, 155)
    if input_format.resize == "square":
        size = (input_format.image_size,) * 2
    shake(detector)
    settle(detector, make_inputs(input_format, input_format.padded_size(*size), 2)[0])
    inputs = []
    for count in (1, 2):
        images, sizes = make_inputs(input_format, size, count)
        inputs.append({"images": images.numpy(), "sizes": sizes.numpy()})
    return detector, inputs


@pytest.mark.parametrize(
    "head",
    [head if head == "classifier" else pytest.param(head, marks=pytest.mark.slow) for head in list_parts("heads")],
)
def test_conversions(head: str) -> None:
    detector, inputs = build(head)
    network = export_network(detector)
    expected = run_onnx(network, inputs[1])
    half, quantized = to_half(network), OnnxQuantizer(network, inputs).convert()
    for converted in (half, quantized):
        onnx.checker.check_model(converted, full_check=True)
        agreement = compare_images(read_outputs(expected), read_outputs(run_onnx(converted, inputs[1])), NEAR)
        assert agreement.total
        if converted is half:
            assert agreement.is_within(NEAR), agreement
    stored = {one.name: one.data_type for one in half.graph.initializer}
    weights = [node.input[1] for node in half.graph.node if node.op_type == "Conv"]
    assert {stored[name] for name in weights} == {onnx.TensorProto.FLOAT16}
    errors = measure_onnx_layers(network, quantized, [layer.node for layer in list_layers(network)], inputs)
    assert all(np.isfinite(error) for error in errors.values())
    model = to_openvino(network)
    compress_weights(compressed := model.clone())
    outputs = run_openvino(compressed, inputs[1])
    assert compare_images(read_outputs(expected), read_outputs(outputs), NEAR).is_within(NEAR)
    outputs = run_openvino(quantize_openvino(model, inputs), inputs[1])
    assert outputs["boxes"].shape == expected["boxes"].shape
