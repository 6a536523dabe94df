"""ONNX graphs written by hand, with arithmetic that reads like arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from boxwright.exporting.requirements import import_onnx

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""Version of ONNX's operators."""

IR_VERSION = 10
"""Version of ONNX's file format that goes with these operators."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})

Number = bool | int | float | np.floating[Any] | np.integer[Any]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a graph that is being written; operators on it add nodes. Numbers become float32 constants."""

    writer: GraphWriter
    name: str

    def __add__(self, other: Value | Number) -> Value:
        return self.writer.add("Add", self, other)

    def __sub__(self, other: Value | Number) -> Value:
        return self.writer.add("Sub", self, other)

    def __rsub__(self, other: Number) -> Value:
        return self.writer.add("Sub", other, self)

    def __mul__(self, other: Value | Number) -> Value:
        return self.writer.add("Mul", self, other)

    def __rmul__(self, other: Number) -> Value:
        return self.writer.add("Mul", other, self)

    def __truediv__(self, other: Value | Number) -> Value:
        return self.writer.add("Div", self, other)

    def __rtruediv__(self, other: Number) -> Value:
        return self.writer.add("Div", other, self)

    def __lt__(self, other: Value | Number) -> Value:
        return self.writer.add("Less", self, other)

    def __gt__(self, other: Value | Number) -> Value:
        return self.writer.add("Greater", self, other)

    def __ge__(self, other: Value | Number) -> Value:
        return self.writer.add("GreaterOrEqual", self, other)

    def __le__(self, other: Value | Number) -> Value:
        return self.writer.add("LessOrEqual", self, other)

    def __and__(self, other: Value) -> Value:
        return self.writer.add("And", self, other)

    def __or__(self, other: Value) -> Value:
        return self.writer.add("Or", self, other)

    def equals(self, other: Value | Number) -> Value:
        """Compare element by element."""
        return self.writer.add("Equal", self, other)

    def floor(self) -> Value:
        """Round down."""
        return self.writer.add("Floor", self)

    def round(self) -> Value:
        """Round to the nearest whole number, and halves to the even one, as Python does."""
        return self.writer.add("Round", self)

    def at_least(self, other: Value | Number) -> Value:
        """Take the larger one, element by element."""
        return self.writer.add("Max", self, other)

    def at_most(self, other: Value | Number) -> Value:
        """Take the smaller one, element by element."""
        return self.writer.add("Min", self, other)

    def to_float(self) -> Value:
        """Convert to float32."""
        return self.writer.cast(self, np.float32)

    def to_int(self) -> Value:
        """Convert to int64."""
        return self.writer.cast(self, np.int64)


class GraphWriter:
    """Nodes and constants of a graph that grows as values are computed.

    Args:
        prefix: of the names of all nodes, constants and values between them.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._onnx = import_onnx()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def value(self, name: str) -> Value:
        """Refer to an input, or to a value that another graph computes."""
        return Value(self, name)

    def add(
        self,
        operator: str,
        *inputs: Value | Number | None,
        attributes: Mapping[str, Any] = _NOTHING,
        output: str | None = None,
    ) -> Value:
        """Add a node with one output.

        Args:
            operator: its name in ONNX.
            *inputs: values; numbers are constants of float32; None for an optional input that is not there.
            attributes: of the operator.
            output: name of the output, of graphs' outputs; made up where None.
        """
        names = ["" if one is None else self._as_value(one).name for one in inputs]
        name = f"{self.prefix}{operator}_{len(self._nodes)}"
        result = name if output is None else output
        self._nodes.append(self._onnx.helper.make_node(operator, names, [result], name, **attributes))
        return Value(self, result)

    def constant(self, values: Any, dtype: type[np.generic] = np.float32) -> Value:
        """Add an array of numbers, once for equal ones."""
        array = np.asarray(values, dtype=dtype)
        key = array.dtype.name, array.shape, array.tobytes()
        if key not in self._constants:
            name = f"{self.prefix}constant_{len(self._constants)}"
            self._constants[key] = self._onnx.numpy_helper.from_array(array, name)
        return Value(self, self._constants[key].name)

    def where(self, condition: Value, value: Value | Number, other: Value | Number) -> Value:
        """Select by a condition, element by element."""
        return self.add("Where", condition, value, other)

    def cast(self, value: Value, dtype: type[np.generic], output: str | None = None) -> Value:
        """Convert to another type."""
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", value, attributes={"to": kind}, output=output)

    def concat(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Join values along an axis."""
        return self.add("Concat", *values, attributes={"axis": axis})

    def finish(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Make the model of all that was added."""
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, name, list(inputs), list(outputs), list(self._constants.values()))
        model: onnx.ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="boxwright"
        )
        return model

    def _as_value(self, one: Value | Number) -> Value:
        return one if isinstance(one, Value) else self.constant(one)
