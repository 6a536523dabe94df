"""Sessions: a file loaded by ONNX Runtime or OpenVINO, both with the same few methods."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from boxwright_runtime.exported_file import ExportedFile
from boxwright_runtime.printable_names import printable

RuntimeName = Literal["onnxruntime", "openvino"]

_LONGEST_REASON = 300

_ONNX_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}


class InputSpec(NamedTuple):
    """One input of a file: its type, as NumPy names it, and how many axes it has."""

    dtype: str
    num_axes: int


class Session(Protocol):
    """A loaded file."""

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        """Its inputs by name."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs."""

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run it on an array for each input; threads may do so at once."""


def open_session(file: ExportedFile, runtime: RuntimeName, threads: int | None) -> Session:
    """Load a file.

    Args:
        file: of the kind that the runtime takes.
        runtime: onnxruntime or openvino.
        threads: on the CPU; as many as the runtime takes by itself where None.

    Raises:
        ValueError: the runtime is not installed, or cannot load the file.
    """
    try:
        library = import_module(runtime)
    except ImportError:
        raise ValueError(f"{runtime} is not installed: pip install {runtime}") from None
    try:
        if runtime == "onnxruntime":
            return _OnnxSession(library, file, threads)
        return _OpenVinoSession(library, file, threads)
    except Exception as error:  # whatever the libraries raise: of damaged files, unknown operators, too little memory
        raise ValueError(f"{printable(file.path)} cannot be loaded by {runtime}: {_in_one_line(error)}") from error


class _OnnxSession:
    def __init__(self, library: Any, file: ExportedFile, threads: int | None) -> None:
        options = library.SessionOptions()
        options.log_severity_level = 3  # errors are raised as well; warnings are of the exporter's interest
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = library.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
        self.inputs = {
            one.name: InputSpec(_ONNX_TYPES.get(one.type, one.type), len(one.shape))
            for one in self._session.get_inputs()
        }
        self.outputs = tuple(one.name for one in self._session.get_outputs())

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        results = self._session.run(list(self.outputs), dict(arrays))
        return dict(zip(self.outputs, results, strict=True))


@cache
def keep_core(library: Any) -> Any:
    """Return the one core of OpenVINO, which lives as long as the process.

    On CPUs with AMX its plugin gives the thread another stack for signals, and frees that with the core: the next
    signal, such as Ctrl-C, then ends the process with a segmentation fault.
    """
    return library.Core()


class _OpenVinoSession:
    def __init__(self, library: Any, file: ExportedFile, threads: int | None) -> None:
        core = keep_core(library)
        # By itself, OpenVINO computes in bfloat16 on CPUs that have it.
        precision = "bf16" if file.metadata.precision == "bf16" else "f32"
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        self._model = core.compile_model(core.read_model(str(file.path)), "CPU", config)
        self.inputs = {
            one.get_any_name(): InputSpec(np.dtype(one.element_type.to_dtype()).name, len(one.partial_shape))
            for one in self._model.inputs
        }
        self.outputs = tuple(one.get_any_name() for one in self._model.outputs)
        self._lock = threading.Lock()
        self._free: list[Any] = []

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        # A request is for one thread at a time: there are as many as threads have ever run at once.
        with self._lock:
            request = self._free.pop() if self._free else self._model.create_infer_request()
        try:
            # Not ``infer``: where an operator fails at a size, that gives the results of the run before (2026.4).
            request.start_async(dict(arrays), share_inputs=True)
            request.wait()
            return {name: request.results[index].copy() for index, name in enumerate(self.outputs)}
        finally:
            with self._lock:
                self._free.append(request)


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "..."
