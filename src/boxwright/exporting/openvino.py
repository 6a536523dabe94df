"""Models of OpenVINO made from ONNX, without the two faults of its conversion that nobody reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from boxwright.exporting.openvino_resize import write_resize
from boxwright.exporting.openvino_top_k import write_stable_top_k
from boxwright.exporting.openvino_writer import keep_precise
from boxwright.exporting.preprocessing import NODE_PREFIX
from boxwright.exporting.requirements import import_openvino
from boxwright_runtime.sessions import keep_core

if TYPE_CHECKING:
    import onnx
    import openvino

OPENVINO_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}
"""Options to compile with: on CPUs that have bfloat16, OpenVINO computes in it unless it is told otherwise.

Files have no place for them that OpenVINO reads.
"""


def to_openvino(model: onnx.ModelProto) -> openvino.Model:
    """Convert a model, in memory.

    - Resize with antialiasing becomes products of matrices: in the modes that the conversion chooses, OpenVINO ignores
      antialiasing; see ``write_resize``.
    - TopK becomes stable: of equal scores, the first stays the first, as in onnxruntime; see ``write_stable_top_k``.
    - Preprocessing is marked to be computed in float32 also where the file is run in bfloat16, in which sizes of images
      are wrong.

    Raises:
        ValueError: OpenVINO is not installed.
    """
    package = import_openvino()
    converted: openvino.Model = keep_core(package).read_model(model.SerializeToString())
    for node in converted.get_ordered_ops():
        kind, attributes = node.get_type_name(), node.get_attributes()
        if kind == "Interpolate" and attributes["antialias"]:
            _replace(node, [_antialiased(package, node)])
        elif kind == "TopK" and not attributes["stable"]:
            _replace(node, _write_stable(package, node, attributes))
    _keep_preprocessing_precise(converted)
    converted.validate_nodes_and_infer_types()
    return converted


def _antialiased(package: Any, node: openvino.Node) -> openvino.Output:
    """Write the resizing of channels-last images, from their bytes where it can: of these fewer are copied."""
    images = node.input_value(0)
    if images.get_node().get_type_name() == "Convert":
        images = images.get_node().input_value(0)
    return write_resize(package, images, node.input_value(1), prefix=node.get_friendly_name()).output(0)


def _write_stable(package: Any, node: openvino.Node, attributes: dict[str, Any]) -> list[openvino.Output]:
    values, k = node.input_value(0), node.input_value(1)
    last = values.get_partial_shape().rank.get_length() - 1
    kind = tuple(attributes[name] for name in ("mode", "sort", "index_element_type"))
    if kind == ("max", "value", "i64") and attributes["axis"] in (-1, last):
        return list(write_stable_top_k(package, values, k, prefix=node.get_friendly_name()))
    stable = package.opset11.topk(values, k, attributes["axis"], *kind, stable=True)
    return [stable.output(0), stable.output(1)]


def _keep_preprocessing_precise(model: openvino.Model) -> None:
    """Let sizes and pixels be computed in float32 where all else is computed in bfloat16."""
    for node in model.get_ops():
        if node.get_friendly_name().startswith(NODE_PREFIX):
            keep_precise(node)


def _replace(node: openvino.Node, replacements: Sequence[openvino.Output]) -> None:
    """Let everything that follows take other outputs; they get the names."""
    for old, new in zip(node.outputs(), replacements, strict=True):
        names = old.get_names()
        old.replace(new)
        new.get_tensor().add_names(names)
