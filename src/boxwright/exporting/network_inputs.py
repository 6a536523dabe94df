"""The network input that a file makes of images, to tell its preprocessing from its network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from boxwright.exporting.merging import extract_preprocessing
from boxwright.exporting.openvino import OPENVINO_OPTIONS
from boxwright.exporting.preprocessing import IMAGE_SIZES, IMAGES, NETWORK_INPUT
from boxwright.exporting.requirements import import_onnx, import_onnxruntime, import_openvino
from boxwright_runtime.sessions import keep_core

if TYPE_CHECKING:
    import openvino


class NetworkInput(NamedTuple):
    """Normalized images of one input size, and ``ImageSize`` of each."""

    images: Float32[np.ndarray, "b 3 h w"]
    sizes: Int64[np.ndarray, "b 4"]


MakeNetworkInput = Callable[[UInt8[np.ndarray, "b height width 3"]], NetworkInput]


def open_preprocessing(path: Path) -> MakeNetworkInput:
    """Load the preprocessing of an exported file into the runtime of that file, without the network.

    Args:
        path: of a file that takes bytes: .onnx, or .xml of OpenVINO.

    Raises:
        ValueError: it has no preprocessing, or its runtime is not installed.
    """
    return _open_openvino(path) if path.suffix == ".xml" else _open_onnx(path)


def _open_onnx(path: Path) -> MakeNetworkInput:
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    part = extract_preprocessing(import_onnx().load(path)).SerializeToString()
    session = runtime.InferenceSession(part, options, providers=["CPUExecutionProvider"])
    return lambda images: NetworkInput(*session.run([NETWORK_INPUT, IMAGE_SIZES], {IMAGES: images}))


def _open_openvino(path: Path) -> MakeNetworkInput:
    package = import_openvino()
    core = keep_core(package)
    model: openvino.Model = core.read_model(path)
    named = {name: output for node in model.get_ops() for output in node.outputs() for name in output.get_names()}
    if NETWORK_INPUT not in named:
        raise ValueError(f"{path} computes no {NETWORK_INPUT}: it has no preprocessing")
    part = package.Model([named[NETWORK_INPUT], named[IMAGE_SIZES]], model.get_parameters(), "preprocessing")
    compiled = core.compile_model(part, "CPU", OPENVINO_OPTIONS)

    def run(images: UInt8[np.ndarray, "b height width 3"]) -> NetworkInput:
        results = compiled({IMAGES: images})
        return NetworkInput(np.array(results[0]), np.array(results[1]))

    return run
