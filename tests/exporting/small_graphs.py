"""A graph of a few layers: preprocessing, convolutions, a linear layer, and arithmetic of boxes after them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = ("conv_1", "conv_2", "linear")


def make_graph(*, spread: float = 1.0, size: float = 1.0, seed: int = 0) -> onnx.ModelProto:
    """Make a graph from bytes (b, h, w, 3) to ``boxes`` (b, 4).

    Args:
        spread: factor of one channel between the convolutions, undone in the second: beyond a few hundred, one scale
            for all channels has no room for the others.
        size: factor of all channels there, undone likewise.
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    widths = np.full(8, size, dtype=np.float32)
    widths[0] *= spread
    first = rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32) * widths[:, None, None, None]
    second = rng.normal(0, 0.2, (16, 8, 3, 3)).astype(np.float32) / widths[None, :, None, None]
    weights = {
        "conv_1.weight": first,
        "conv_1.bias": rng.normal(0, 0.1, 8).astype(np.float32) * widths,
        "conv_2.weight": second,
        "conv_2.bias": rng.normal(0, 0.1, 16).astype(np.float32),
        "linear.weight": rng.normal(0, 0.3, (16, 4)).astype(np.float32),
        "preprocessing/scale": np.float32(1 / 255),
        "anchor": np.array([[100.25, 50.5, 1999.75, 1200.125]], dtype=np.float32),
        "stride": np.float32(32.0),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["preprocessing/float"], "preprocessing/Cast", to=TensorProto.FLOAT),
        node("Transpose", ["preprocessing/float"], ["preprocessing/chw"], "preprocessing/Transpose", perm=[0, 3, 1, 2]),
        node("Mul", ["preprocessing/chw", "preprocessing/scale"], ["network_input"], "preprocessing/Mul"),
        node("Conv", ["network_input", "conv_1.weight", "conv_1.bias"], ["c1"], "conv_1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], "relu_1"),
        node("MaxPool", ["r1"], ["p1"], "pool_1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "conv_2.weight", "conv_2.bias"], ["c2"], "conv_2", pads=[1] * 4),
        node("Sigmoid", ["c2"], ["g2"], "gate_2"),
        node("Mul", ["c2", "g2"], ["s2"], "silu_2"),
        node("GlobalAveragePool", ["s2"], ["a2"], "mean_2"),
        node("Flatten", ["a2"], ["f2"], "flat_2"),
        node("MatMul", ["f2", "linear.weight"], ["deltas"], "linear"),
        node("Mul", ["deltas", "stride"], ["offsets"], "scale_boxes"),
        node("Add", ["offsets", "anchor"], ["boxes"], "add_anchor"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"boxwright": "{}"})
    onnx.checker.check_model(model, full_check=True)
    return model


def make_inputs(count: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Make images of noise, one at a time."""
    rng = np.random.default_rng(seed)
    return [{"images": rng.integers(0, 256, (1, 24, 36, 3), dtype=np.uint8)} for _ in range(count)]


def run_graph(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> Any:
    """Run it in onnxruntime, and return the boxes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["boxes"], inputs)[0]


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of the first outputs of nodes, by the names of the nodes."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    of_tensors = {one.name: one.type.tensor_type.elem_type for one in (*typed.graph.value_info, *typed.graph.output)}
    return {node.name: of_tensors[node.output[0]] for node in typed.graph.node}
