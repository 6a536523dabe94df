"""The operators of ``boxwright.ops.onnx_operators`` in those of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

EVERY_BOX = 2**63 - 1
"""Boxes of a class that are kept at most."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """List the operators and the functions that write them, as ``torch.onnx.export`` takes them."""
    ours = torch.ops.boxwright
    return {
        ours.nms.default: write_nms,
        ours.top_k.default: write_top_k,
        ours.max_pool_same.default: write_max_pool_same,
        ours.max_pool_ceil.default: write_max_pool_ceil,
        ours.avg_pool_ceil.default: write_avg_pool_ceil,
        ours.roi_align.default: write_roi_align,
    }


def opset() -> Any:
    """Import the operators of ONNX, which are an extra."""
    from onnxscript import opset20

    return opset20


def write_nms(boxes: Any, scores: Any, groups: Any, valid: Any, threshold: float, num_groups: int) -> Any:
    """Write NonMaxSuppression, of which groups are the classes.

    Each class has the scores of its boxes, and for all others one that is below every score.
    """
    op = opset()
    classes = op.Constant(value_ints=list(range(num_groups)))
    own = op.Equal(op.Unsqueeze(groups, [1]), op.Unsqueeze(classes, [0, 2]))  # b k n
    by_group = op.Where(op.And(own, op.Unsqueeze(valid, [1])), op.Unsqueeze(scores, [1]), op.Constant(value_float=-1.0))
    limits = (
        op.Constant(value_ints=[EVERY_BOX]),
        op.Constant(value_floats=[threshold]),
        op.Constant(value_floats=[-0.5]),
    )
    kept = op.NonMaxSuppression(boxes, by_group, *limits)  # m 3: image, class, box
    indices = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(indices, start=0, end=1))
    # Not the scores times 0, which may be infinite.
    zeros = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
    return op.Greater(op.ScatterND(zeros, indices, ones), op.Constant(value_float=0.5))


def write_top_k(x: Any, count: Any) -> Any:
    """Write TopK, which puts the lower index first among equal values."""
    op = opset()
    # The count is a number, or a value of the graph.
    most = op.Constant(value_ints=[count]) if isinstance(count, int) else op.Reshape(count, op.Constant(value_ints=[1]))
    return op.TopK(x, op.Min(op.Shape(x, start=1, end=2), most), axis=1)


def write_max_pool_same(x: Any, kernel_size: int, stride: int) -> Any:
    """Write MaxPool, whose padding follows from the size of the map."""
    return opset().MaxPool(x, kernel_shape=[kernel_size] * 2, strides=[stride] * 2, auto_pad="SAME_UPPER")


def write_max_pool_ceil(x: Any, size: int) -> Any:
    """Write MaxPool with windows over the far edges."""
    return opset().MaxPool(x, kernel_shape=[size] * 2, strides=[size] * 2, ceil_mode=1)


def write_avg_pool_ceil(x: Any) -> Any:
    """Write AveragePool with windows over the far edges, which do not count what they have not."""
    return opset().AveragePool(x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER", count_include_pad=0)


def write_roi_align(
    maps: Any,
    strides: Sequence[int],
    boxes: Any,
    images: Any,
    levels: Any,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """Write one RoiAlign for each level, of its own regions, and bring all regions back into their order."""
    op = opset()
    indices, aligned_regions = [], []
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        own = op.Reshape(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), op.Constant(value_ints=[-1]))
        region = op.RoiAlign(
            x,
            op.Gather(boxes, own),
            op.Gather(images, own),
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            output_height=output_size,
            output_width=output_size,
            sampling_ratio=sampling_ratio,
            spatial_scale=1 / stride,
        )
        indices.append(own)
        aligned_regions.append(region)
    order = op.Concat(*indices, axis=0)
    numbers = op.Range(op.Constant(value_int=0), op.Size(order), op.Constant(value_int=1))
    return op.Gather(op.Concat(*aligned_regions, axis=0), op.ScatterElements(order, order, numbers))
