"""Models of OpenVINO with weights in float16, or quantized to int8 by nncf."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np

from boxwright.exporting.preprocessing import NODE_PREFIX
from boxwright.exporting.requirements import import_extra, import_openvino

if TYPE_CHECKING:
    import openvino

PRODUCT_TYPES = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
)
"""Types of the nodes that products of ONNX become."""

_BETWEEN = ("Reshape", "Transpose", "Convert", "Unsqueeze", "Squeeze")
"""Types of nodes that may stand between weights and the layer that they are of."""

_PASSING = (*_BETWEEN, "MaxPool", "Concat", "Split", "VariadicSplit", "StridedSlice", "Slice", "Gather", "Result")
"""Types of nodes that pass on what they read, in whatever precision."""

_NO_TELEMETRY = "NNCF_CI"

LEAST_WEIGHTS = 64
"""Numbers of weights that are worth a conversion."""


def list_openvino_layers(model: openvino.Model) -> list[str]:
    """List the names of layers in their order, those of the preprocessing not among them."""
    return [node.get_friendly_name() for node in model.get_ordered_ops() if _is_layer(node)]


def name_openvino_layers(model: openvino.Model) -> dict[str, str]:
    """Return the parts of the detector that layers are, where their weights still have names, by the layers' names."""
    names = {}
    for node in filter(_is_layer, model.get_ordered_ops()):
        constant = _find_constant(node.input(1))
        weight = "" if constant is None else constant.get_friendly_name()
        if weight.endswith(".weight"):
            names[node.get_friendly_name()] = weight.removeprefix("detector.").removesuffix(".weight")
    return names


def compress_weights(model: openvino.Model, float32: Collection[str] = ()) -> None:
    """Store the weights of layers in float16, in place; the file has half the size.

    A CPU without float16 computes with them in float32; where the device has it, OpenVINO computes in float16.

    Args:
        model: in float32.
        float32: names of layers that keep their weights.

    Raises:
        ValueError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    operators = openvino.opset13
    largest = float(np.finfo(np.float16).max)
    for node in model.get_ordered_ops():
        if not _is_layer(node) or node.get_friendly_name() in float32:
            continue
        for one in node.inputs():
            constant = _find_constant(one)
            if constant is None or constant.get_element_type() != openvino.Type.f32:
                continue
            weights = constant.data
            if weights.size < LEAST_WEIGHTS or not np.abs(weights).max() <= largest:
                continue
            half = operators.constant(weights.astype(np.float16), name=f"{constant.get_friendly_name()}/fp16")
            full = operators.convert(half, "f32", name=constant.get_friendly_name())
            # The mark keeps the runtime from converting it back when the file is read.
            full.get_rt_info()["decompression_0"] = ""
            constant.output(0).replace(full.output(0))
    model.validate_nodes_and_infer_types()


def quantize_openvino(
    model: openvino.Model, calibration: Sequence[Mapping[str, np.ndarray]], float32: Collection[str] = ()
) -> openvino.Model:
    """Quantize a model to int8.

    nncf is told that there are transformers: its defaults lose points of AP on detectors, which this does not.

    Args:
        model: in float32; it stays as it is.
        calibration: inputs that are like those to come, by name.
        float32: names of nodes that stay in float32, besides the preprocessing and what follows the last layer.

    Raises:
        ValueError: there is no input, or OpenVINO or nncf is not installed.
    """
    if not calibration:
        raise ValueError("int8 needs images to measure activations on, and there are none: give --calibrate DATA")
    nncf = _import_nncf()
    names = {*float32, *list_outer_nodes(model)}
    scope = nncf.IgnoredScope(names=sorted(names), patterns=[f"^{re.escape(NODE_PREFIX)}.*"], validate=False)
    # It draws progress bars on standard output.
    with redirect_stdout(io.StringIO()):
        quantized: openvino.Model = nncf.quantize(
            model,
            nncf.Dataset([dict(one) for one in calibration]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            ignored_scope=scope,
        )
    return quantized


def list_quantized_nodes(model: openvino.Model) -> list[str]:
    """List the names of nodes that compute with int8, in their order: sums between layers may be among them."""
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() not in _PASSING
        and any(_is_quantized(one.get_source_output().get_node()) for one in node.inputs())
    ]


def _is_quantized(source: Any) -> bool:
    return source.get_type_name() == "FakeQuantize" or "/fq_weights" in source.get_friendly_name()


def list_outer_nodes(model: openvino.Model) -> list[str]:
    """List the nodes that no layer depends on: what turns the last layers' outputs into detections."""
    inner: set[str] = set()
    waiting = [node for node in model.get_ordered_ops() if _is_layer(node)]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in inner:
            inner.add(node.get_friendly_name())
            waiting += [one.get_source_output().get_node() for one in node.inputs()]
    ends = ("Constant", "Parameter", "Result")
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_friendly_name() not in inner and node.get_type_name() not in ends
    ]


def _import_nncf() -> Any:
    """Import nncf, which would send what it is used for to a server: this variable of its tests keeps it from that."""
    before = os.environ.get(_NO_TELEMETRY)
    os.environ[_NO_TELEMETRY] = "1"
    try:
        nncf = import_extra("nncf", "openvino")
    finally:
        if before is None:
            del os.environ[_NO_TELEMETRY]
    nncf.set_log_level(logging.ERROR)
    return nncf


def _is_layer(node: Any) -> bool:
    return node.get_type_name() in PRODUCT_TYPES and not node.get_friendly_name().startswith(NODE_PREFIX)


def _find_constant(port: Any) -> Any | None:
    """Find the constant that an input reads, through nodes that only change its form."""
    node = port.get_source_output().get_node()
    while node.get_type_name() in _BETWEEN:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None
