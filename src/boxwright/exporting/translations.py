"""The operators of ``boxwright.ops.onnx_operators`` in those of ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

FLOAT, INT64, BOOL = 1, 7, 9
"""Types of elements, as ONNX numbers them."""

LARGEST_MAP = 4096
"""Cells along a side of a map, at most."""

EVERY_BOX = 2**63 - 1
"""Boxes of a class that are kept at most."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """List the operators and the functions that write them, as ``torch.onnx.export`` takes them."""
    ours, aten = torch.ops.boxwright, torch.ops.aten
    return {
        aten.split.Tensor: write_split,
        aten.split_with_sizes.default: write_split,
        aten.unbind.int: write_unbind,
        aten.scaled_dot_product_attention.default: write_attention,
        ours.nms.default: write_nms,
        ours.top_k.default: write_top_k,
        ours.max_pool_same.default: write_max_pool_same,
        ours.max_pool_ceil.default: write_max_pool_ceil,
        ours.avg_pool_ceil.default: write_avg_pool_ceil,
        ours.pooled_context.default: write_pooled_context,
        ours.position_table.default: write_position_table,
        ours.roi_align.default: write_roi_align,
    }


def opset() -> Any:
    """Import the operators of ONNX, which are an extra."""
    from onnxscript import opset20

    return opset20


def write_split(x: Any, sizes: Any, dim: int = 0) -> Any:
    """Write one Slice for each part, where torch's own exporter makes a sequence, which many runtimes do not know."""
    op = opset()
    if isinstance(sizes, int):
        length = x.shape[dim]
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)]
    parts, start, axis = [], op.Constant(value_ints=[0]), op.Constant(value_ints=[dim])
    for size in sizes:
        end = op.Add(start, as_vector(op, size))
        parts.append(op.Slice(x, start, end, axis))
        start = end
    return tuple(parts)


def write_unbind(x: Any, dim: int = 0) -> Any:
    """Write one Gather for each entry of an axis."""
    op = opset()
    return tuple(op.Gather(x, op.Constant(value_int=index), axis=dim) for index in range(x.shape[dim]))


def write_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Write two products of matrices and a softmax between them; the arguments are those of torch.

    Raises:
        ValueError: for what no part asks for.
    """
    if dropout_p or is_causal or enable_gqa:
        raise ValueError("attention with dropout, with a causal mask or in groups has no translation")
    op, rank = opset(), len(key.shape)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    columns = op.Transpose(key, perm=[*range(rank - 2), rank - 1, rank - 2])
    logits = op.MatMul(query if factor == 1 else op.Mul(query, op.Constant(value_float=factor)), columns)
    if attn_mask is not None and attn_mask.dtype == BOOL:
        logits = op.Where(attn_mask, logits, op.Constant(value_float=-math.inf))
    elif attn_mask is not None:
        logits = op.Add(logits, attn_mask)
    return op.MatMul(op.Softmax(logits, axis=-1), value)


def as_vector(op: Any, size: Any) -> Any:
    """Write a number, which may be a value of the graph, as a vector of one."""
    return op.Constant(value_ints=[size]) if isinstance(size, int) else op.Reshape(size, op.Constant(value_ints=[1]))


def as_scalar(op: Any, size: Any) -> Any:
    """Write a number, which may be a value of the graph, as a scalar."""
    return op.Constant(value_int=size) if isinstance(size, int) else op.Squeeze(size)


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
    return op.TopK(x, op.Min(op.Shape(x, start=1, end=2), as_vector(op, count)), axis=1)


def write_max_pool_same(x: Any, kernel_size: int, stride: int) -> Any:
    """Write MaxPool, whose padding follows from the size of the map."""
    return opset().MaxPool(x, kernel_shape=[kernel_size] * 2, strides=[stride] * 2, auto_pad="SAME_UPPER")[0]


def write_max_pool_ceil(x: Any, size: int) -> Any:
    """Write Pad, which repeats the far edges up to a whole window, and MaxPool.

    Not its ``ceil_mode``: a map that is smaller than a window is an error in OpenVINO.
    """
    op = opset()
    cells, window = op.Shape(x, start=2, end=4), op.Constant(value_ints=[size, size])
    whole = op.Mul(op.Div(op.Add(cells, op.Constant(value_ints=[size - 1] * 2)), window), window)
    # Before every axis, and after the first two, nothing.
    pads = op.Concat(op.Constant(value_ints=[0] * 6), op.Sub(whole, cells), axis=0)
    padded = op.Pad(x, pads, mode="edge")
    return op.MaxPool(padded, kernel_shape=[size] * 2, strides=[size] * 2)[0]


def write_avg_pool_ceil(x: Any) -> Any:
    """Write AveragePool with windows over the far edges, which do not count what they have not."""
    return opset().AveragePool(x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER", count_include_pad=0)


def write_pooled_context(x: Any, weight: Any, bias: Any, ratio: float) -> Any:
    """Write the mean of windows along each axis as a product with a matrix; then Conv and Resize."""
    op = opset()
    shape = op.Shape(x)
    rows, columns = (_pooling(op, op.Gather(shape, op.Constant(value_int=axis)), ratio) for axis in (2, 3))
    pooled = op.Conv(op.MatMul(op.MatMul(rows, x), op.Transpose(columns, perm=[1, 0])), weight, bias)
    sizes = op.Concat(op.Shape(pooled, start=0, end=2), op.Shape(x, start=2, end=4), axis=0)
    return op.Resize(pooled, None, None, sizes, mode="linear", coordinate_transformation_mode="align_corners")


def _pooling(op: Any, size: Any, ratio: float) -> Any:
    """Write the matrix of the means of adaptive windows: from cell i n / m, rounded down, to (i + 1) n / m, up."""
    one = op.Constant(value_int=1)
    # Looked up, because a product would be rounded in another way in other runtimes.
    counts = op.Constant(value_ints=[max(1, int(cells * ratio)) for cells in range(LARGEST_MAP + 1)])
    count = op.Gather(counts, size)
    window = op.Range(op.Constant(value_int=0), count, one)
    first = op.Unsqueeze(op.Div(op.Mul(window, size), count), [1])
    reached = op.Mul(op.Add(window, one), size)
    end = op.Unsqueeze(op.Div(op.Add(reached, op.Sub(count, one)), count), [1])
    cells = op.Unsqueeze(op.Range(op.Constant(value_int=0), size, one), [0])
    inside = op.Cast(op.And(op.GreaterOrEqual(cells, first), op.Less(cells, end)), to=FLOAT)
    return op.Div(inside, op.Cast(op.Sub(end, first), to=FLOAT))


def write_position_table(
    table: Any, length: int, length_across: int, cells: Any, cells_across: Any, relative: bool
) -> Any:
    """Write the rows of a table between which positions lie, and weigh them."""
    op = opset()
    own, other = ((n + 1) // 2 if relative else n for n in (length, length_across))
    whole_at = op.Constant(value_ints=[round(own * (across / other)) for across in range(LARGEST_MAP + 1)])
    one = op.Constant(value_int=1)
    cells = as_scalar(op, cells)
    whole = op.Max(cells, op.Gather(whole_at, as_scalar(op, cells_across)))
    beyond = op.Sub(whole, cells)
    if relative:
        steps = op.Sub(op.Add(whole, whole), op.Constant(value_int=2))
        end = op.Sub(op.Add(whole, cells), one)
        entry = op.Cast(op.Range(beyond, end, one), to=FLOAT)
        scale = op.Div(op.Constant(value_float=float(length - 1)), op.Cast(op.Max(steps, one), to=FLOAT))
        middle = op.Cast(op.Equal(steps, op.Constant(value_int=0)), to=FLOAT)
        position = op.Add(op.Mul(entry, scale), op.Mul(middle, op.Constant(value_float=(length - 1) / 2)))
    else:
        entry = op.Cast(op.Range(op.Constant(value_int=0), cells, one), to=FLOAT)
        half = op.Constant(value_float=0.5)
        scale = op.Div(op.Constant(value_float=float(length)), op.Cast(whole, to=FLOAT))
        position = op.Sub(op.Mul(op.Add(entry, half), scale), half)
        position = op.Max(position, op.Constant(value_float=0.0))
    last = op.Constant(value_int=length - 1)
    low = op.Min(op.Cast(op.Floor(position), to=INT64), last)
    fraction = op.Unsqueeze(op.Sub(position, op.Cast(low, to=FLOAT)), [1])
    high = op.Gather(table, op.Min(op.Add(low, one), last))
    low = op.Gather(table, low)
    return op.Add(low, op.Mul(fraction, op.Sub(high, low)))


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
