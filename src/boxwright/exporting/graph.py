"""A detector as a graph of ONNX: normalized network inputs to detections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from boxwright.detector import Detector
from boxwright.exporting.detector_graph import GRAPH_OUTPUTS, MASK_OUTPUTS
from boxwright.exporting.graph_writer import OPSET
from boxwright.exporting.requirements import import_extra
from boxwright.exporting.simplification import simplify
from boxwright.exporting.tracing import has_free_size, trace
from boxwright.exporting.translations import translations
from boxwright.ops.onnx_operators import Operators

if TYPE_CHECKING:
    import onnx


def export_network(detector: Detector, *, ops: Operators = "auto") -> onnx.ModelProto:
    """Export a detector from the network input to boxes in pixels of the original images.

    Inputs are ``images``, float32 (b, 3, h, w), normalized, of one input size and not padded, and ``sizes``, int64
    (b, 4): height, width, input height and input width of each image. Outputs are those of
    ``DetectorGraph``. The batch is free; so are height and width where the input format keeps aspect ratios.

    Args:
        detector: in whatever mode; it stays as it is. Norms and RepVGG blocks are folded in a copy.
        ops: ``plain`` reads gathered rows where ``auto`` has GridSample.

    Raises:
        ValueError: onnx or onnxscript is not installed; or something of a part cannot be traced or written in ONNX.
    """
    for package in ("onnx", "onnxscript"):
        import_extra(package, "export")
    try:
        return _export(detector.fold().cpu().float(), ops)
    except MemoryError:
        raise
    except Exception as error:  # torch raises all sorts of errors for what it cannot trace or translate.
        raise ValueError(f"this detector cannot be written in ONNX: {_reason(error)}") from error


def _export(detector: Detector, ops: Operators) -> onnx.ModelProto:
    exported = torch.onnx.export(
        trace(detector, ops),
        (),
        dynamo=True,
        opset_version=OPSET,
        custom_translation_table=translations(),
        optimize=False,
        external_data=False,
        verbose=False,
        input_names=["images", "sizes"],
        output_names=list(GRAPH_OUTPUTS + MASK_OUTPUTS if detector.needs_masks else GRAPH_OUTPUTS),
    )
    assert exported is not None
    simplify(exported.model)
    model = exported.model_proto
    name_dimensions(model, has_free_size(detector))
    return model


def _reason(error: BaseException) -> str:
    """Get the first line of the error that was the first one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def name_dimensions(model: onnx.ModelProto, free_size: bool) -> None:
    """Name the free dimensions of inputs and outputs, and drop formulas of sizes that nothing reads."""
    del model.graph.value_info[:]
    names = {"images": ["batch", "", "height" if free_size else "", "width" if free_size else ""]}
    for value in (*model.graph.input, *model.graph.output):
        axes = names.get(value.name, ["batch", "detections"])
        for axis, dimension in zip(axes, value.type.tensor_type.shape.dim, strict=False):
            if dimension.HasField("dim_param"):
                dimension.dim_param = axis
