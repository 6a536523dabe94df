"""Preprocessing put before a network, and taken out of a merged graph again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from boxwright.exporting.preprocessing import IMAGE_SIZES, IMAGES, NETWORK_INPUT, NODE_PREFIX
from boxwright.exporting.requirements import import_onnx

if TYPE_CHECKING:
    import onnx


def merge(preprocessing: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """Put preprocessing before a network; nodes, constants and metadata of the network stay as they are.

    Args:
        preprocessing: of ``preprocessing_graph``; ``images`` in bytes to ``network_input`` and ``sizes``.
        network: of ``export_network``; ``images``, which is the network input, and ``sizes`` to detections.

    Raises:
        ValueError: the network has other inputs, or their versions of ONNX's operators differ.
    """
    names = [value.name for value in network.graph.input]
    if names != [IMAGES, IMAGE_SIZES]:
        raise ValueError(f"a network to put preprocessing before has inputs images and sizes, not {', '.join(names)}")
    versions = [_operator_version(model) for model in (preprocessing, network)]
    if versions[0] != versions[1]:
        raise ValueError(f"preprocessing is written in version {versions[0]} of ONNX, the network in {versions[1]}")
    merged: onnx.ModelProto = import_onnx().ModelProto()
    merged.CopyFrom(network)
    graph = merged.graph
    # A value of the network may have the name that its input gets.
    _rename(graph.node, {NETWORK_INPUT: f"{NETWORK_INPUT}_of_network"})
    _rename(graph.node, {IMAGES: NETWORK_INPUT})
    del graph.input[:], graph.value_info[:]
    graph.input.extend(preprocessing.graph.input)
    nodes = [*preprocessing.graph.node, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(preprocessing.graph.initializer)
    merged.ir_version = max(preprocessing.ir_version, network.ir_version)
    return merged


def extract_preprocessing(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the preprocessing out of a merged model, to compare with what follows from its network input.

    Raises:
        ValueError: the model has none.
    """
    package = import_onnx()
    nodes = [node for node in model.graph.node if node.name.startswith(NODE_PREFIX)]
    if not {NETWORK_INPUT, IMAGE_SIZES} <= {name for node in nodes for name in node.output}:
        raise ValueError(f"this model computes no {NETWORK_INPUT}: it has no preprocessing")
    info, kinds = package.helper.make_tensor_value_info, package.TensorProto
    outputs = [info(NETWORK_INPUT, kinds.FLOAT, None), info(IMAGE_SIZES, kinds.INT64, None)]
    constants = [constant for constant in model.graph.initializer if constant.name.startswith(NODE_PREFIX)]
    graph = package.helper.make_graph(nodes, "preprocessing", model.graph.input, outputs, constants)
    part: onnx.ModelProto = package.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    return part


def list_inner_graphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """List the graphs that an attribute of a node holds, as the branches of If."""
    # Whoever writes into a field that is not there makes the attribute one of two types.
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _operator_version(model: onnx.ModelProto) -> int | None:
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), None)


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Rename values in nodes, and in the graphs inside them, which see the values outside."""
    for node in nodes:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                if name in names:
                    values[index] = names[name]
        for attribute in node.attribute:
            for inner in list_inner_graphs(attribute):
                _rename(inner.node, names)
                _rename_values(inner.output, names)


def _rename_values(values: Iterable[onnx.ValueInfoProto], names: Mapping[str, str]) -> None:
    for value in values:
        value.name = names.get(value.name, value.name)
