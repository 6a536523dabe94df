"""Sessions: a file loaded by ONNX Runtime or OpenVINO, both with the same few methods."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from boxwright_runtime.exported_file import ExportedFile
from boxwright_runtime.printable_names import printable

RuntimeName = Literal["onnxruntime", "openvino"]

REPEATS_TO_FIX = 3
"""Runs at one size of the arrays until OpenVINO compiles the model for that size alone."""

_MOST_FIXED = 2
"""Sizes that a model is compiled for, besides all sizes: each takes memory for another copy of the weights."""

_MOST_COUNTED = 16
"""Sizes whose runs are counted, those that came last."""

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


def open_session(
    file: ExportedFile, runtime: RuntimeName, threads: int | None, *, fixed_shapes: bool = True
) -> Session:
    """Load a file.

    Args:
        file: of the kind that the runtime takes.
        runtime: onnxruntime or openvino.
        threads: on the CPU; as many as the runtime takes by itself where None.
        fixed_shapes: compile the model anew for sizes that repeat; of OpenVINO alone.

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
        return _OpenVinoSession(library, file, threads, fixed_shapes)
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


class _Compiled:
    """A compiled model of OpenVINO; threads may run it at once."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._lock = threading.Lock()
        self._free: list[Any] = []

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run it, and return its outputs in their order."""
        # A request is for one thread at a time: there are as many as threads have ever run at once.
        with self._lock:
            request = self._free.pop() if self._free else self.model.create_infer_request()
        try:
            # Not ``infer``: where an operator fails at a size, that gives the results of the run before (2026.4).
            request.start_async(dict(arrays), share_inputs=True)
            request.wait()
            return [request.results[index].copy() for index in range(len(self.model.outputs))]
        finally:
            with self._lock:
                self._free.append(request)


_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class _OpenVinoSession:
    """A file in OpenVINO: compiled for all sizes, and for the first ones that repeat once more.

    Where sizes are known, it computes faster, by a tenth to a fifth. Which sizes are compiled depends on nothing but
    the sizes that came in, so that results do not depend on time.
    """

    def __init__(self, library: Any, file: ExportedFile, threads: int | None, fixed_shapes: bool) -> None:
        self._core = keep_core(library)
        # By itself, OpenVINO computes in bfloat16 on CPUs that have it.
        precision = "bf16" if file.metadata.precision == "bf16" else "f32"
        self._config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._source = self._core.read_model(str(file.path))
        self._any_size = _Compiled(self._core.compile_model(self._source, "CPU", self._config))
        self.inputs = {
            one.get_any_name(): InputSpec(np.dtype(one.element_type.to_dtype()).name, len(one.partial_shape))
            for one in self._any_size.model.inputs
        }
        self.outputs = tuple(one.get_any_name() for one in self._any_size.model.outputs)
        self._most_fixed = _MOST_FIXED if fixed_shapes else 0
        self._lock = threading.Lock()
        self._fixed: dict[_Shapes, _Compiled] = {}
        self._counts: OrderedDict[_Shapes, int] = OrderedDict()

    def run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        shapes = tuple((name, array.shape) for name, array in sorted(arrays.items()))
        with self._lock:
            compiled = self._fixed.get(shapes, self._any_size)
            is_due = shapes not in self._fixed and self._is_due(shapes)
            if is_due:  # Other threads do not wait for it.
                self._fixed[shapes] = self._any_size
        if is_due:
            compiled = self._fixed[shapes] = self._compile(shapes)
        return dict(zip(self.outputs, compiled.run(arrays), strict=True))

    def _is_due(self, shapes: _Shapes) -> bool:
        """Count another run, and tell whether the model is to be compiled for its sizes."""
        if len(self._fixed) >= self._most_fixed:
            return False
        self._counts[shapes] = self._counts.pop(shapes, 0) + 1
        if len(self._counts) > _MOST_COUNTED:
            self._counts.popitem(last=False)
        return self._counts[shapes] >= REPEATS_TO_FIX

    def _compile(self, shapes: _Shapes) -> _Compiled:
        model = self._source.clone()
        try:
            model.reshape({name: list(shape) for name, shape in shapes})
            return _Compiled(self._core.compile_model(model, "CPU", self._config))
        except Exception:  # Whatever the library raises. The one for all sizes has run at these.
            return self._any_size


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "..."
