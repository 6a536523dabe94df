"""Models run in either runtime, in float32 and with one thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino

from boxwright.exporting.openvino import OPENVINO_OPTIONS, to_openvino
from boxwright_runtime.sessions import keep_core

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
"""Inputs by name to outputs by name."""

RUNTIMES = ["onnxruntime", "openvino"]


def start(model: onnx.ModelProto, runtime: str, options: dict[str, Any] | None = None) -> Run:
    """Load a model into a runtime.

    Args:
        model: the model.
        runtime: one of ``RUNTIMES``.
        options: of OpenVINO, which then reads the model from a file.
    """
    if runtime == "onnxruntime":
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))
    converted = to_openvino(model)
    core = keep_core(openvino)
    if options is not None:
        with TemporaryDirectory() as folder:
            openvino.save_model(converted, path := str(Path(folder, "model.xml")), compress_to_fp16=False)
            compiled = core.compile_model(core.read_model(path), "CPU", options)
    else:
        compiled = core.compile_model(converted, "CPU", {**OPENVINO_OPTIONS, "INFERENCE_NUM_THREADS": 1})
    names = [output.any_name for output in compiled.outputs]
    return lambda inputs: {name: np.array(value) for name, value in zip(names, compiled(inputs).values(), strict=True)}
