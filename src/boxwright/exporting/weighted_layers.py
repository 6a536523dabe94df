"""The layers of a graph that converters to other precisions change: products with weights, and of activations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from boxwright.exporting.preprocessing import NODE_PREFIX

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that take nearly all of the time, and that low precision makes faster."""


class WeightedLayer(NamedTuple):
    """A layer that may be computed in lower precision.

    Args:
        node: name of its node in the graph.
        name: of the part of the detector that it is, as ``backbone.stem.0.conv``; the node's where that is not known.
    """

    node: str
    name: str


def list_layers(model: onnx.ModelProto) -> list[WeightedLayer]:
    """List the layers of a graph in their order, those of the preprocessing not among them."""
    weights = {one.name for one in model.graph.initializer}
    return [
        WeightedLayer(node.name, _name_part(node, weights))
        for node in model.graph.node
        if node.op_type in PRODUCTS and not node.name.startswith(NODE_PREFIX)
    ]


def name_layers(model: onnx.ModelProto, nodes: Iterable[str]) -> list[str]:
    """Return the names of parts for nodes, for people."""
    names = {layer.node: layer.name for layer in list_layers(model)}
    return [names.get(node, node) for node in nodes]


def find_trunk(model: onnx.ModelProto) -> set[str]:
    """Return the names of nodes that some layer depends on, and of the layers themselves.

    All others are the preprocessing, and what turns the last layers' outputs into detections: boxes in pixels, scores
    and ranks are never computed in lower precision.
    """
    needed: set[str] = set()
    trunk: set[str] = set()
    for node in reversed(model.graph.node):
        if node.name.startswith(NODE_PREFIX):
            continue
        if node.op_type in PRODUCTS or not needed.isdisjoint(node.output):
            trunk.add(node.name)
            needed.update(list_read_tensors(node))
    return trunk


def list_read_tensors(node: onnx.NodeProto) -> list[str]:
    """List the tensors that a node reads, those that its inner graphs read from outside included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        graphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
        for graph in graphs:
            names += [name for inner in graph.node for name in list_read_tensors(inner)]
            names += [output.name for output in graph.output]
    return names


def _name_part(node: onnx.NodeProto, weights: set[str]) -> str:
    weight = str(node.input[1])
    is_named = weight in weights and weight.endswith(".weight")
    return weight.removeprefix("detector.").removesuffix(".weight") if is_named else str(node.name)
