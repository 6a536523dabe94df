"""Exported files in other precisions than float32: converted, and converted again with some layers left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from boxwright.exporting.export_file import write_model
from boxwright.exporting.half_precision import to_half
from boxwright.exporting.layer_errors import find_overflows, measure_onnx_layers, measure_openvino_layers
from boxwright.exporting.metadata import write_openvino_metadata
from boxwright.exporting.onnx_int8 import OnnxQuantizer
from boxwright.exporting.openvino_precision import (
    compress_weights,
    list_openvino_layers,
    list_quantized_nodes,
    name_openvino_layers,
    quantize_openvino,
)
from boxwright.exporting.requirements import import_extra, import_onnx, import_openvino
from boxwright.exporting.weighted_layers import list_layers
from boxwright_runtime.exported_file import FileKind, read_exported_file
from boxwright_runtime.sessions import keep_core

if TYPE_CHECKING:
    import onnx
    import openvino

Precision = Literal["fp32", "fp16", "bf16", "int8"]

Images = Sequence[Mapping[str, np.ndarray]]
"""Inputs of a file, one image each."""

NUM_ERROR_IMAGES = 8
"""Images that the errors of layers are measured on."""

_MOST_OVERFLOWS = 10
"""Rounds of finding numbers beyond half precision: what stays in float32 may overflow where it is read."""


def check_precision(precision: str, form: FileKind) -> None:
    """Make sure that files of a form can have a precision, and that what makes them is installed.

    Raises:
        ValueError: they cannot, or it is not.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {', '.join(get_args(Precision))}, not {precision!r}")
    if precision == "bf16" and form == "onnx":
        raise ValueError(
            "onnxruntime has no bfloat16 on CPUs, so that nothing could be compared: bf16 is for --to openvino; "
            "for onnx take fp16 or int8"
        )
    if precision == "int8":
        import_extra(*(("nncf", "openvino") if form == "openvino" else ("onnxruntime.quantization", "export")))


@runtime_checkable
class FileConverter(Protocol):
    """Conversion of one file in float32 to another precision."""

    def write(self, target: Path, float32: Sequence[str] = ()) -> None:
        """Write the converted file.

        Args:
            target: of the same form as the file in float32.
            float32: names of nodes that stay in float32.
        """

    def rank_layers(self) -> dict[str, float]:
        """Measure what each converted layer adds to the error in the file that was written last; largest first."""

    def name_layers(self, nodes: Sequence[str]) -> list[str]:
        """Return the names of parts of the detector for nodes, where they are known."""


def open_converter(source: Path, precision: Precision, images: Images) -> FileConverter:
    """Read a file in float32 for conversions.

    Args:
        source: the file.
        precision: fp16, bf16 or int8.
        images: inputs like those to come, which int8 needs, and fp16 takes to find numbers that it does not have.

    Raises:
        ValueError: files of this form cannot have this precision, or int8 has no images.
    """
    exported = read_exported_file(source)
    check_precision(precision, exported.kind)
    if exported.kind == "openvino":
        return _OpenVinoConverter(source, precision, images)
    return _OnnxConverter(source, precision, images)


class _OnnxConverter:
    def __init__(self, source: Path, precision: Precision, images: Images) -> None:
        self.metadata = replace(read_exported_file(source).metadata, precision=precision)
        self.model: onnx.ModelProto = import_onnx().load(source)
        self.images = images
        self.quantizer = OnnxQuantizer(self.model, images) if precision == "int8" else None
        self.converted = self.model
        self._overflows: list[str] = []
        if self.quantizer is None:
            self._overflows = self._find_overflows()

    def write(self, target: Path, float32: Sequence[str] = ()) -> None:
        kept = (*float32, *(name for name in self._overflows if name not in float32))
        self.converted = self.quantizer.convert(kept) if self.quantizer is not None else to_half(self.model, kept)
        write_model(self.converted, replace(self.metadata, float32_nodes=tuple(kept)), target)

    def rank_layers(self) -> dict[str, float]:
        layers = [layer.node for layer in list_layers(self.model)]
        return measure_onnx_layers(self.model, self.converted, layers, self.images[:NUM_ERROR_IMAGES])

    def name_layers(self, nodes: Sequence[str]) -> list[str]:
        names = {layer.node: layer.name for layer in list_layers(self.model)}
        return [names.get(node, node) for node in nodes]

    def _find_overflows(self) -> list[str]:
        """Find the nodes that have to stay in float32 whatever else does."""
        kept: list[str] = []
        for _ in range(_MOST_OVERFLOWS if self.images else 0):
            overflows = find_overflows(self.model, to_half(self.model, kept), self.images[:NUM_ERROR_IMAGES])
            if not overflows:
                break
            kept += [name for name in overflows if name not in kept]
        return kept


class _OpenVinoConverter:
    def __init__(self, source: Path, precision: Precision, images: Images) -> None:
        self.metadata = replace(read_exported_file(source).metadata, precision=precision)
        self.precision, self.images = precision, images
        if precision == "int8" and not images:
            raise ValueError("int8 needs images to measure activations on, and there are none: give --calibrate DATA")
        self.model: openvino.Model = keep_core(import_openvino()).read_model(source)
        self.converted = self.model

    def write(self, target: Path, float32: Sequence[str] = ()) -> None:
        self.converted = self.model.clone()
        if self.precision == "fp16":
            compress_weights(self.converted, float32)
        elif self.precision == "int8":
            self.converted = quantize_openvino(self.model, self.images, float32)
        write_openvino_metadata(self.converted, replace(self.metadata, float32_nodes=tuple(float32)))
        import_openvino().save_model(self.converted, target, compress_to_fp16=False)

    def rank_layers(self) -> dict[str, float]:
        layers = (list_quantized_nodes if self.precision == "int8" else list_openvino_layers)(self.converted)
        return measure_openvino_layers(self.model, self.converted, layers, self.images[:NUM_ERROR_IMAGES])

    def name_layers(self, nodes: Sequence[str]) -> list[str]:
        names = name_openvino_layers(self.model)
        return [names.get(node, node) for node in nodes]


def describe_layers(names: Sequence[str], most: int = 5) -> str:
    """List a few names of layers, and how many there are besides."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
