"""ONNX graphs in int8, quantized by onnxruntime from what their layers see on images."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from boxwright.exporting.preprocessing import NODE_PREFIX
from boxwright.exporting.requirements import import_extra, import_onnx
from boxwright.exporting.weighted_layers import PRODUCTS, find_trunk, list_layers, list_read_tensors

if TYPE_CHECKING:
    import onnx

GraphInputs = Mapping[str, np.ndarray]
"""Arrays by the names of a graph's inputs."""

BETWEEN = ("Relu", "Clip", "MaxPool", "Concat", "Resize", "Transpose", "Reshape")
"""Operators between two layers that pass int8 on, so that nothing is converted there and back."""


_VALUES: Mapping[str, tuple[int, ...]] = {
    "RoiAlign": (0,),
    "GridSample": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "ScatterND": (0, 2),
    "ScatterElements": (0, 2),
    "Where": (1, 2),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "NonZero", "NonMaxSuppression"), ()),
}
"""Inputs whose values come out again; the others say where to read, or what to choose."""


class OnnxQuantizer:
    """Quantizes one graph, as often as needed: what its layers see is measured once.

    Weights are symmetric, of each output channel by itself; activations have a zero point. Only convolutions and
    linear layers are quantized, with what lies between them: never products of activations, norms, sums or sampling,
    nor the preprocessing or anything after the last layer. Convolutions whose outputs are predictions stay in
    float32: their outputs would have 256 values; so would boxes between the stages of a model.

    Args:
        model: in float32, without functions.
        calibration: inputs that are like those to come.

    Raises:
        ValueError: there is no input, or onnx or onnxruntime are not installed.
    """

    def __init__(self, model: onnx.ModelProto, calibration: Sequence[GraphInputs]) -> None:
        if not calibration:
            raise ValueError("int8 needs images to measure activations on, and there are none: give --calibrate DATA")
        self.quantization = import_extra("onnxruntime.quantization", "export")
        import_onnx()
        self.model, self.calibration = model, calibration
        self._folder = TemporaryDirectory()
        self._fixed = list_fixed_nodes(model)

    def convert(self, float32: Collection[str] = ()) -> onnx.ModelProto:
        """Quantize the graph, in a copy.

        Args:
            float32: names of nodes that stay in float32.
        """
        module, quantization = import_onnx(), self.quantization
        folder = Path(self._folder.name)
        copy = type(self.model)()
        copy.CopyFrom(self.model)  # the quantizer changes what it is given
        with _without_warnings():
            quantization.quantize_static(
                copy,
                folder / "quantized.onnx",
                _Reader(self.calibration),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=[*PRODUCTS, *BETWEEN],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=[*self._fixed, *float32],
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={
                    "MatMulConstBOnly": True,
                    "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                },
                calibration_cache_path=folder / "ranges.json",
            )
        converted: onnx.ModelProto = module.load(folder / "quantized.onnx")
        _Bypass(self.model, converted).apply(float32)
        del converted.graph.value_info[:]
        del converted.metadata_props[:]
        module.helper.set_model_props(converted, {one.key: one.value for one in self.model.metadata_props})
        return converted


class _Bypass:
    """Lets nodes that stay in float32 read what is not quantized, in place.

    The quantizer leaves such nodes alone, but not what comes in: it is quantized for the nodes before them.

    Args:
        original: graph before it was quantized.
        converted: the quantized one.
    """

    def __init__(self, original: onnx.ModelProto, converted: onnx.ModelProto) -> None:
        self.original, self.graph = original, converted.graph
        self.made = {name: node for node in self.graph.node for name in node.output}
        names = {node.name for node in self.graph.node}
        self.removed = {node.output[0]: node for node in original.graph.node if node.name not in names}
        """Activations that the quantizer has taken into the layers before them: their quantized output begins at 0."""

    def apply(self, float32: Collection[str]) -> None:
        """Change what these nodes read, through nodes that only pass on what they read."""
        waiting = [node for node in self.graph.node if node.name in set(float32)]
        while waiting:
            node = waiting.pop()
            for i, name in enumerate(node.input):
                node.input[i] = self._bypass(name)
                source = self.made.get(node.input[i])
                if source is not None and source.op_type in BETWEEN:
                    waiting.append(source)
        self._drop_unread()

    def _bypass(self, name: str) -> str:
        back = self.made.get(name)
        there = self.made.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
        if there is None or there.op_type != "QuantizeLinear":
            return name
        source = there.input[0]
        return self._activate(source) if source in self.removed else source

    def _activate(self, source: str) -> str:
        """Put the activation back, for float32 alone."""
        output = f"{source}/float32"
        if output not in self.made:
            activation = type(self.removed[source])()
            activation.CopyFrom(self.removed[source])
            activation.input[0], activation.output[0] = source, output
            nodes = list(self.graph.node)
            self.graph.node.insert(nodes.index(self.made[source]) + 1, activation)
            self.made[output] = activation
            there = {one.name for one in self.graph.initializer}
            limits = set(activation.input[1:]) - there
            self.graph.initializer.extend(one for one in self.original.graph.initializer if one.name in limits)
        return output

    def _drop_unread(self) -> None:
        """Drop conversions and constants that nobody reads."""
        kinds = ("QuantizeLinear", "DequantizeLinear")
        while True:
            read = {name for node in self.graph.node for name in list_read_tensors(node)}
            unread = [node for node in self.graph.node if node.op_type in kinds and read.isdisjoint(node.output)]
            if not unread:
                break
            for node in unread:
                self.graph.node.remove(node)
        for tensor in [one for one in self.graph.initializer if one.name not in read]:
            self.graph.initializer.remove(tensor)


def list_fixed_nodes(model: onnx.ModelProto) -> list[str]:
    """List the nodes that are never quantized: preprocessing, predictions, what comes after them, and boxes.

    Convolutions predict where none of their values reaches another layer. Those of proposals are among them, which
    only choose what the next stage reads.
    """
    trunk = find_trunk(model)
    layers = {layer.node for layer in list_layers(model)}
    needed: set[str] = set()
    predictions = []
    for node in reversed(model.graph.node):
        is_layer = node.name in layers
        if is_layer and needed.isdisjoint(node.output) and node.op_type == "Conv":
            predictions.append(node.name)
        if is_layer or not needed.isdisjoint(node.output):
            values = _VALUES.get(node.op_type)
            needed.update(list_read_tensors(node) if values is None else [node.input[index] for index in values])
    outside = [one.name for one in model.graph.node if one.name not in trunk or one.name.startswith(NODE_PREFIX)]
    return [*outside, *predictions, *_list_apart(model, layers.difference(predictions))]


def _list_apart(model: onnx.ModelProto, layers: Collection[str]) -> list[str]:
    """List the nodes that pass on what no convolution has made and no layer reads, such as boxes that are put together.

    Args:
        model: the graph.
        layers: names of its nodes that are quantized.
    """
    between = [node for node in model.graph.node if node.op_type in BETWEEN]
    made = {node.output[0] for node in model.graph.node if node.name in layers and node.op_type == "Conv"}
    read = {node.input[0] for node in model.graph.node if node.name in layers}
    for node in between:
        if not made.isdisjoint(node.input):
            made.update(node.output)
    for node in reversed(between):
        if not read.isdisjoint(node.output):
            read.update(node.input if node.op_type == "Concat" else node.input[:1])
    return [node.name for node in between if made.isdisjoint(node.output) and read.isdisjoint(node.output)]


class _Reader:
    """Gives inputs one after the other, as onnxruntime's calibration asks for them."""

    def __init__(self, inputs: Sequence[GraphInputs]) -> None:
        self._rest: Iterator[GraphInputs] = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next inputs; None at the end."""
        following = next(self._rest, None)
        return None if following is None else dict(following)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the quantizer's advice on its own root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
