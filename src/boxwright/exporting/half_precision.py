"""ONNX graphs in float16, by the rules of mixed precision: products in half, what is delicate in float32."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from boxwright.exporting.preprocessing import NODE_PREFIX
from boxwright.exporting.requirements import import_onnx
from boxwright.exporting.weighted_layers import PRODUCTS, find_trunk, list_read_tensors

if TYPE_CHECKING:
    import onnx

_LARGEST = float(np.finfo(np.float16).max)

HALF_SUFFIX = "/fp16"
"""End of the name of a tensor in half precision; the one without it is the same in float32."""

ALL, FIRST, REST, ENDS = slice(None), slice(0, 1), slice(1, None), slice(0, 3, 2)

FOLLOWING: Mapping[str, slice] = {
    **dict.fromkeys(("Relu", "LeakyRelu", "Elu", "Gelu", "HardSwish", "Sigmoid", "Tanh", "Neg", "Identity"), ALL),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Concat", "Clip"), ALL),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "Resize"), FIRST),
    **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split"), FIRST),
    **dict.fromkeys(("Gather", "Expand", "Tile", "SpaceToDepth", "DepthToSpace"), FIRST),
    "Where": REST,
    "Pad": ENDS,
}
"""Operators that compute in half precision where all that comes in is, and their inputs that are data."""


def to_half(model: onnx.ModelProto, float32: Collection[str] = ()) -> onnx.ModelProto:
    """Convert a graph to float16, in a copy; its inputs and outputs stay as they are.

    As under torch's autocast, products (convolutions, linear layers, attention) are computed in half precision, and
    so is what follows them as long as all inputs are: numbers do not count, tensors do. Everything else stays in
    float32: softmax, norms, exponentials, sampling, selection, and so arithmetic of boxes with anchors and points.
    A sigmoid is in half precision only as a part of SiLU. The preprocessing and all that follows the last product
    stay as they are.

    Args:
        model: in float32, without functions.
        float32: names of nodes that stay in float32.

    Raises:
        ValueError: onnx is not installed.

    **Source**: torch.amp's list of operators by type; differs in that data sampled from half maps becomes float32.
    """
    onnx = import_onnx()
    typed = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return _Conversion(typed, frozenset(float32)).run()


class _Conversion:
    """The conversion of one graph, node by node in its order."""

    def __init__(self, typed: onnx.ModelProto, float32: frozenset[str]) -> None:
        self.onnx = import_onnx()
        self.model: onnx.ModelProto = self.onnx.ModelProto()
        self.model.CopyFrom(typed)
        graph = self.model.graph
        self.float32, self.trunk = float32, find_trunk(self.model)
        self.numbers = self._read_constants()
        values = (*graph.input, *graph.value_info, *graph.output)
        self.floats = {one.name for one in values if one.type.tensor_type.elem_type == self.onnx.TensorProto.FLOAT}
        self.floats |= self.numbers.keys()
        self.silu = self._find_silu()
        self.half: set[str] = set()
        """Tensors that there are in half precision."""
        self.full: set[str] = set(self.floats)
        """Tensors that there are in float32; those that only half-precision nodes make are not, until they are read."""
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> onnx.ModelProto:
        """Convert, and drop constants that only half-precision nodes have read."""
        graph = self.model.graph
        for node in graph.node:
            if self._is_half(node):
                self._add_half(node)
            else:
                for name in list_read_tensors(node):
                    self._need_full(name)
                self.nodes.append(node)
        for output in graph.output:
            self._need_full(output.name)
        read = {name for node in self.nodes for name in list_read_tensors(node)} | {one.name for one in graph.output}
        nodes = [node for node in self.nodes if node.op_type != "Constant" or not read.isdisjoint(node.output)]
        initializers = [one for one in graph.initializer if one.name in read]
        for field, kept in ((graph.node, nodes), (graph.initializer, initializers)):
            copies = [type(one).FromString(one.SerializeToString()) for one in kept]
            del field[:]
            field.extend(copies)
        del graph.value_info[:]
        return self.model

    def _read_constants(self) -> dict[str, np.ndarray]:
        """Read all constants of floats."""
        onnx, graph = self.onnx, self.model.graph
        tensors = {one.name: one for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
        numbers = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
        for node in graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                value = onnx.helper.get_attribute_value(attribute)
                if attribute.name == "value" and value.data_type == onnx.TensorProto.FLOAT:
                    numbers[node.output[0]] = onnx.numpy_helper.to_array(value)
                elif attribute.name in ("value_float", "value_floats"):
                    numbers[node.output[0]] = np.array(value, dtype=np.float32)
        return numbers

    def _find_silu(self) -> set[str]:
        """Find the sigmoids that only weight their own input."""
        readers: dict[str, list[Any]] = {}
        for node in self.model.graph.node:
            for name in list_read_tensors(node):
                readers.setdefault(name, []).append(node)
        silu = set()
        for node in self.model.graph.node:
            if node.op_type == "Sigmoid":
                (*others, reader) = readers.get(node.output[0], [None])
                if not others and reader is not None and reader.op_type == "Mul" and node.input[0] in reader.input:
                    silu.add(node.name)
        return silu

    def _is_half(self, node: onnx.NodeProto) -> bool:
        if (
            self._crashes(node)
            or node.name in self.float32
            or node.name not in self.trunk
            or node.name.startswith(NODE_PREFIX)
        ):
            return False
        data = self._data(node)
        if not data or not all(name in self.floats and self._has_range(name) for name in data):
            return False
        if node.op_type in PRODUCTS:
            return True
        if node.op_type == "Sigmoid" and node.name not in self.silu:
            return False
        computed = [name for name in data if name not in self.numbers or self.numbers[name].ndim]
        return bool(computed) and all(name in self.half for name in computed)

    def _crashes(self, node: onnx.NodeProto) -> bool:
        """Tell of a transposition to channels last, which crashes onnxruntime 1.32 after two convolutions in half."""
        order = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
        return node.op_type == "Transpose" and order == [0, 2, 3, 1]

    def _data(self, node: onnx.NodeProto) -> list[str]:
        """Inputs that are data, and none where the operator is not of those that compute in half precision."""
        inputs: Sequence[str] = node.input
        if node.op_type not in PRODUCTS:
            inputs = inputs[FOLLOWING[node.op_type]] if node.op_type in FOLLOWING else ()
        return [name for name in inputs if name]

    def _has_range(self, name: str) -> bool:
        """Tell whether a constant has no number that is infinite in half precision only."""
        numbers = self.numbers.get(name)
        return numbers is None or bool((np.isinf(numbers) | ~(np.abs(numbers) > _LARGEST)).all())

    def _add_half(self, node: onnx.NodeProto) -> None:
        data = set(self._data(node))
        for name in data:
            self._need_half(name)
        converted = self.onnx.NodeProto()
        converted.CopyFrom(node)
        selected = FOLLOWING.get(node.op_type, ALL)
        positions = range(len(node.input))[selected]
        converted.input[:] = [
            name + HALF_SUFFIX if name in data and i in positions else name for i, name in enumerate(node.input)
        ]
        converted.output[:] = [name and name + HALF_SUFFIX for name in node.output]
        self.nodes.append(converted)
        made = set(filter(None, node.output))
        self.half |= made
        self.full -= made

    def _need_half(self, name: str) -> None:
        if name in self.half:
            return
        self.half.add(name)
        if name in self.numbers:
            tensor = self.onnx.numpy_helper.from_array(self.numbers[name].astype(np.float16), name + HALF_SUFFIX)
            self.model.graph.initializer.append(tensor)
        else:
            self._cast(name, name + HALF_SUFFIX, self.onnx.TensorProto.FLOAT16)

    def _need_full(self, name: str) -> None:
        if name in self.half and name not in self.full:
            self.full.add(name)
            self._cast(name + HALF_SUFFIX, name, self.onnx.TensorProto.FLOAT)

    def _cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(self.onnx.helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=kind))
