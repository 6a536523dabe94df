"""Tracing of a detector's graph, with every size free that differs between images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch

from boxwright.contracts import Backbone
from boxwright.detector import Detector
from boxwright.exporting.detector_graph import DetectorGraph
from boxwright.ops.onnx_operators import Operators, tracing_for_onnx


def has_free_size(detector: Detector) -> bool:
    """Tell whether height and width of the network input differ between images."""
    return detector.input_format.resize in ("shortest_side", "letterbox")


def trace(detector: Detector, ops: Operators) -> torch.export.ExportedProgram:
    """Trace the graph of a folded detector; the batch is free, height and width are where images differ in them.

    It is traced on two images of unequal sides that are no multiples of any stride, and above twice the coarsest one:
    a size that equals another one, or a level of one cell, would become a constant of the graph.
    """
    height, width = trace_size(detector)
    images, sizes = torch.zeros(2, 3, height, width), torch.tensor([[height, width, height, width]] * 2)
    free = {0: torch.export.Dim("batch", min=1)}
    of_images = dict(free)
    if has_free_size(detector):
        # In a square, a side may have any length.
        is_letterbox, side = detector.input_format.resize == "letterbox", detector.input_format.image_size
        least, most = (2, side) if is_letterbox else (coarsest_stride(detector) + 1, None)
        of_images |= {axis: torch.export.Dim(name, min=least, max=most) for axis, name in ((2, "height"), (3, "width"))}
    graph = DetectorGraph(detector).eval()
    with tracing_for_onnx(ops), whole_number_padding(), torch.no_grad():
        return torch.export.export(graph, (images, sizes), dynamic_shapes=(of_images, free), strict=False)


def trace_size(detector: Detector) -> tuple[int, int]:
    """Choose the (height, width) of the images that a graph is traced on."""
    side = detector.input_format.image_size
    if not has_free_size(detector):
        return side, side
    if detector.input_format.resize == "letterbox":
        return side - 5, side - 3
    coarsest = coarsest_stride(detector)
    return 5 * coarsest // 2 + 3, 7 * coarsest // 2 + 9


def coarsest_stride(detector: Detector) -> int:
    """Find the coarsest stride of all levels of all parts, in pixels."""
    parts = [cast(Backbone, part) for part in (detector.backbone, *detector.necks)]
    return max(level.stride for part in parts for level in part.out_spec.values())


@contextmanager
def whole_number_padding() -> Iterator[None]:
    """Let timm compute its "SAME" padding of free sizes in whole numbers.

    Its own formula has a true quotient and a maximum, which nest in each other from layer to layer: an EfficientNet
    would be traced for hours.
    """
    from timm.layers import padding  # Measuring the speed of a model, which may be exported, has no need of it.

    timms = padding.get_same_padding
    padding.get_same_padding = compute_same_padding
    try:
        yield
    finally:
        padding.get_same_padding = timms


def compute_same_padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Compute the cells by which a map is padded so that ceil(x / stride) windows fit."""
    window = (kernel_size - 1) * dilation + 1
    padded = (x + stride - 1) // stride * stride - stride + window - x
    return padded if window >= stride else max(padded, 0)
