"""Operators that stay whole in a graph that is traced for ONNX, where each becomes what ONNX has for it.

Traced into its parts, each of them would be slower, lose its ties or be wrong: suppression needs shapes that depend on
data, sorts have to keep the order of equal scores, and the padding of a pool depends on whether a size is odd. They run
as plain operators of torch too, so that a traced program can be run. ``boxwright.exporting`` translates them.

Schemas are written out, because torch cannot infer them where the tests check types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.ops.position_tables import fit_table

APART = 2.0**20
"""Pixels between groups: further than any image is wide."""

Operators = Literal["auto", "plain"]
"""Operators that a file may have: all of ONNX, or no GridSample, which some runtimes do not know."""

_TRACED: ContextVar[Operators | None] = ContextVar("traced_for_onnx", default=None)


@contextmanager
def tracing_for_onnx(ops: Operators = "auto") -> Iterator[None]:
    """Take the operators of this module while a graph is traced."""
    token = _TRACED.set(ops)
    try:
        yield
    finally:
        _TRACED.reset(token)


operators_for_onnx = _TRACED.get
"""Get the operators that a graph may have which is traced for ONNX now; None where none is traced."""


@torch.library.custom_op(
    "boxwright::nms",
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor groups, Tensor valid, float threshold, SymInt num_groups) -> Tensor",
)
def onnx_nms(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, threshold: float, num_groups: int) -> Tensor:
    """Compute the mask of ``boxwright.ops.nms.nms_keep_mask``, of groups 0 .. ``num_groups`` - 1."""
    # Where it is needed: importing it takes a second.
    from torchvision.ops import nms

    del num_groups
    keep = torch.zeros_like(valid)
    for image, own in enumerate(valid):
        (indices,) = torch.where(own)
        apart = boxes[image, indices].double() + (groups[image, indices] * APART)[:, None]
        keep[image, indices[nms(apart, scores[image, indices].double(), threshold)]] = True
    return keep


@onnx_nms.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, threshold: float, num_groups: int) -> Tensor:
    del boxes, scores, groups, threshold, num_groups
    return torch.empty_like(valid)


@torch.library.custom_op("boxwright::top_k", mutates_args=(), schema="(Tensor x, SymInt count) -> (Tensor, Tensor)")
def onnx_top_k(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the ``count`` largest values of each row, or all, and their indices; of equal ones the first is larger."""
    values, indices = x.sort(dim=1, descending=True, stable=True)
    return values[:, :count].clone(), indices[:, :count].clone()


@onnx_top_k.register_fake
def _(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    least = torch.sym_min(x.shape[1], count)
    return x.new_empty(x.shape[0], least), x.new_empty(x.shape[0], least, dtype=torch.int64)


@torch.library.custom_op(
    "boxwright::max_pool_same",
    mutates_args=(),
    schema="(Tensor x, SymInt kernel_size, SymInt stride) -> Tensor",
)
def onnx_max_pool_same(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Max-pool to ceil(size / stride), with the padding split between both sides and an odd cell at the far one."""
    height, width = ((-(-size // stride) - 1) * stride + kernel_size - size for size in x.shape[-2:])
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.max_pool2d(F.pad(x, sides, value=-torch.inf), kernel_size, stride)


@onnx_max_pool_same.register_fake
def _(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    del kernel_size
    return _reduced(x, stride)


@torch.library.custom_op("boxwright::avg_pool_ceil", mutates_args=(), schema="(Tensor x) -> Tensor")
def onnx_avg_pool_ceil(x: Tensor) -> Tensor:
    """Average windows of 2 x 2 cells; those over the far edges over the cells that they have."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


@onnx_avg_pool_ceil.register_fake
def _(x: Tensor) -> Tensor:
    return _reduced(x, 2)


@torch.library.custom_op("boxwright::max_pool_ceil", mutates_args=(), schema="(Tensor x, SymInt size) -> Tensor")
def onnx_max_pool_ceil(x: Tensor, size: int) -> Tensor:
    """Take the largest of each window of ``size`` x ``size`` cells; those over the far edges have fewer."""
    return F.max_pool2d(x, size, ceil_mode=True)


@onnx_max_pool_ceil.register_fake
def _(x: Tensor, size: int) -> Tensor:
    return _reduced(x, size)


def _reduced(x: Tensor, stride: int) -> Tensor:
    b, c, h, w = x.shape
    return x.new_empty(b, c, (h + stride - 1) // stride, (w + stride - 1) // stride)


@torch.library.custom_op(
    "boxwright::pooled_context",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, float ratio) -> Tensor",
)
def onnx_pooled_context(x: Tensor, weight: Tensor, bias: Tensor, ratio: float) -> Tensor:
    """Average a map to ``ratio`` of its rows and columns, apply a 1 x 1 convolution, and upsample to its size."""
    height, width = (max(1, int(size * ratio)) for size in x.shape[-2:])
    pooled = F.conv2d(F.adaptive_avg_pool2d(x, (height, width)), weight, bias)
    return F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=True)


@onnx_pooled_context.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, ratio: float) -> Tensor:
    del bias, ratio
    return x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])


@torch.library.custom_op(
    "boxwright::position_table",
    mutates_args=(),
    schema="(Tensor table, SymInt length, SymInt length_across, SymInt cells, SymInt cells_across, bool relative) "
    "-> Tensor",
)
def onnx_position_table(
    table: Tensor, length: int, length_across: int, cells: int, cells_across: int, relative: bool
) -> Tensor:
    """Compute ``boxwright.ops.position_tables.fit_table``."""
    return fit_table(table, length, length_across, cells, cells_across, relative).clone()


@onnx_position_table.register_fake
def _(table: Tensor, length: int, length_across: int, cells: int, cells_across: int, relative: bool) -> Tensor:
    del length, length_across, cells_across
    return table.new_empty(2 * cells - 1 if relative else cells, table.shape[1])


@torch.library.custom_op(
    "boxwright::roi_align",
    mutates_args=(),
    schema="(Tensor[] maps, SymInt[] strides, Tensor boxes, Tensor images, Tensor levels, SymInt output_size, "
    "SymInt sampling_ratio, bool aligned) -> Tensor",
)
def onnx_roi_align(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Compute what ``boxwright.ops.roi_align.roi_align`` does."""
    from boxwright.ops.roi_align import Grid, align_level_by_level

    return align_level_by_level(maps, strides, boxes, images, levels, Grid(output_size, sampling_ratio, aligned))


@onnx_roi_align.register_fake
def _(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    del strides, images, levels, sampling_ratio, aligned
    return maps[0].new_empty(boxes.shape[0], maps[0].shape[1], output_size, output_size)
