"""Errors of the layers of a converted graph, each by itself: of its output, less those that came in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from boxwright.exporting.half_precision import HALF_SUFFIX
from boxwright.exporting.onnx_int8 import BETWEEN, GraphInputs
from boxwright.exporting.openvino import OPENVINO_OPTIONS
from boxwright.exporting.requirements import import_onnx, import_onnxruntime, import_openvino
from boxwright_runtime.sessions import keep_core

if TYPE_CHECKING:
    import onnx
    import openvino

RunGraph = Callable[[GraphInputs], Mapping[str, np.ndarray]]
"""GraphInputs to the values of points of a graph, by their names."""


def measure_onnx_layers(
    reference: onnx.ModelProto, converted: onnx.ModelProto, layers: Sequence[str], inputs: Iterable[GraphInputs]
) -> dict[str, float]:
    """Measure the error that each layer of an ONNX graph adds, relative to its output.

    Args:
        reference: in float32.
        converted: the same graph in another precision.
        layers: names of nodes.
        inputs: to run both on.

    Returns:
        errors by layer, the largest first; infinite where numbers overflow.
    """
    points_of = _Points(reference)
    targets = {name: points_of.nodes[name].output[0] for name in layers}
    sources = {name: points_of.sources(name) for name in layers}
    points = sorted({*targets.values(), *(one for own in sources.values() for one in own)})
    taps = _tap_onnx(reference, points), _tap_onnx(converted, points, points_of.after)
    errors = _compare(*taps, points, inputs)
    return _rank({name: (targets[name], sources[name]) for name in layers}, errors)


def find_overflows(reference: onnx.ModelProto, converted: onnx.ModelProto, inputs: Iterable[GraphInputs]) -> list[str]:
    """Find the nodes of a graph in half precision that make or read numbers beyond it.

    A CPU may not show them: onnxruntime computes there in float32, and rounds only some of what passes between nodes.

    Args:
        reference: in float32.
        converted: in half precision.
        inputs: to run the reference on.
    """
    halves = {name: node for node in converted.graph.node for name in node.output if name.endswith(HALF_SUFFIX)}
    readers: dict[str, list[str]] = {}
    for node in converted.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    run, largest = (
        _tap_onnx(reference, [name.removesuffix(HALF_SUFFIX) for name in halves]),
        float(np.finfo(np.float16).max),
    )
    overflows: set[str] = set()
    for one in inputs:
        for name, x in run(one).items():
            half = halves[name + HALF_SUFFIX]
            if np.abs(x).max(initial=0) > largest:
                overflows.update(readers[name + HALF_SUFFIX] if half.op_type == "Cast" else [half.name])
    return [node.name for node in reference.graph.node if node.name in overflows]


def measure_openvino_layers(
    reference: openvino.Model, converted: openvino.Model, layers: Sequence[str], inputs: Iterable[GraphInputs]
) -> dict[str, float]:
    """Do the same for a model of OpenVINO; see ``measure_onnx_layers``."""
    named = {node.get_friendly_name(): node for node in reference.get_ordered_ops()}
    layers = [name for name in layers if name in named]
    sources = {name: _list_sources(named[name]) for name in layers}
    points = sorted({*layers, *(one for own in sources.values() for one in own)})
    errors = _compare(_tap_openvino(reference, points), _tap_openvino(converted, points), points, inputs)
    return _rank({name: (name, sources[name]) for name in layers}, errors)


class _Points:
    """The tensors of a graph that show the errors of a layer: its output, and what the layers before it have made."""

    def __init__(self, reference: onnx.ModelProto) -> None:
        self.nodes = {node.name: node for node in reference.graph.node}
        self.made = {name: node for node in reference.graph.node for name in node.output if node.op_type != "Constant"}
        self.after = {
            node.input[0]: node.output[0] for node in reference.graph.node if node.op_type in ("Relu", "Clip")
        }
        """Names that outputs have where the quantizer has taken the activation into the layer before it."""

    def sources(self, layer: str) -> list[str]:
        """Go back through nodes that only pass on what they read: what is lost there is lost for the layer."""
        sources, waiting = [], list(self.nodes[layer].input)
        while waiting:
            name = waiting.pop()
            if name in self.made:
                node = self.made[name]
                if node.op_type in BETWEEN:
                    waiting += node.input
                else:
                    sources.append(name)
        return sources


def _rank(layers: Mapping[str, tuple[str, Sequence[str]]], errors: Mapping[str, float]) -> dict[str, float]:
    """Subtract the largest error that came in from that of the output, and put the largest difference first."""
    own = {}
    for name, (target, sources) in layers.items():
        before = max((errors[one] for one in sources), default=0.0)
        own[name] = max(0.0, errors[target] - before) if np.isfinite(before) else 0.0
    return dict(sorted(own.items(), key=lambda item: -item[1]))


def _compare(
    reference: RunGraph, converted: RunGraph, points: Sequence[str], inputs: Iterable[GraphInputs]
) -> dict[str, float]:
    """Return the errors of points, relative to their sizes in the reference, over all inputs."""
    squares = {name: np.zeros(2) for name in points}
    for one in inputs:
        expected, values = reference(one), converted(one)
        for name in points:
            if name not in values or values[name].shape != expected[name].shape:
                continue  # Other detections came this far, and are not comparable.
            x, y = expected[name].astype(np.float64), values[name].astype(np.float64)
            error = np.square(y - x).sum() if np.isfinite(y[np.isfinite(x)]).all() else np.inf
            squares[name] += error, np.square(x).sum()
    return {name: float(np.sqrt(error / max(size, 1e-30))) for name, (error, size) in squares.items()}


def _tap_onnx(model: onnx.ModelProto, points: Sequence[str], others: Mapping[str, str] | None = None) -> RunGraph:
    """Make a function that runs a graph, and returns the values of these of its tensors that it has.

    Args:
        model: the graph.
        points: names of tensors; the one in half precision stands for one that there is not in float32.
        others: names of tensors that stand for points where there is neither.
    """
    onnx, onnxruntime = import_onnx(), import_onnxruntime()
    tapped = type(model)()
    tapped.CopyFrom(model)
    made = {name for node in model.graph.node for name in node.output}
    others = others or {}
    forms = {name: (name, name + HALF_SUFFIX, others.get(name, name)) for name in points}
    tensors = {name: next((one for one in own if one in made), None) for name, own in forms.items()}
    outputs = {one.name for one in model.graph.output}
    for tensor in dict.fromkeys(tensors.values()):
        if tensor is not None and tensor not in outputs:
            tapped.graph.output.append(onnx.ValueInfoProto(name=tensor))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def run(inputs: GraphInputs) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(list(names.values()), dict(inputs)), strict=True))

    return run


def _tap_openvino(model: openvino.Model, points: Sequence[str]) -> RunGraph:
    """Do the same for a model of OpenVINO, whose points are names of nodes."""
    openvino = import_openvino()
    tapped = model.clone()
    named = {node.get_friendly_name(): node for node in tapped.get_ordered_ops()}
    names = [name for name in points if name in named]
    first = len(tapped.outputs)
    for name in names:
        tapped.add_outputs(named[name].output(0))
    compiled = keep_core(openvino).compile_model(tapped, "CPU", OPENVINO_OPTIONS)

    def run(inputs: GraphInputs) -> dict[str, np.ndarray]:
        values = compiled(dict(inputs))
        return {name: values[first + i] for i, name in enumerate(names)}

    return run


def _list_sources(node: Any) -> list[str]:
    """List the nodes that a layer reads, but for constants and the model's inputs."""
    sources = [one.get_source_output().get_node() for one in node.inputs()]
    return [one.get_friendly_name() for one in sources if one.get_type_name() not in ("Constant", "Parameter")]
