"""Deformable sampling in Triton: one kernel forward and one backward, for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.deformable.embedding_bag import find_corners, head_by_head, value_gradient

# Numbers of a map that one program holds at a time: as many (query, head) pairs as there is room for.
NUMBERS_PER_PROGRAM = 512

INTERPRETED = bool(triton.knobs.runtime.interpret)

# Of the two operators; sizes are h and w of each level in turn, points the number of points of each level.
INPUTS = "Tensor value, Tensor locations, Tensor weights, int[] sizes, int[] points, bool deterministic"


def triton_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m p 2"],
    weights: Float[Tensor, "b q m p"],
    points: Sequence[int],
    deterministic: bool = False,
) -> Float[Tensor, "b q m*d"]:
    """Sample with programs for a few (query, head) pairs each, which write nothing but sums.

    Accumulates in float32, or float64 where ``value`` is. The gradients of locations and weights are sums within a
    program. That of the values is gathered by atomic additions, in any order, or deterministically, by one sort and
    four weighted sums of rows, as in the ``embedding_bag`` form. To ``torch.compile`` it is one operator.
    The arguments are those of ``deformable_sampling``.

    Raises:
        ValueError: for tensors that are not on a GPU, outside of Triton's interpreter.
    """
    if value.device.type != "cuda" and not INTERPRETED:
        raise ValueError(f"backend 'triton' runs on CUDA, not on {value.device.type}: take 'auto'")
    sizes = [side for shape in shapes for side in shape]
    out: Tensor = _sample(value, locations, weights, sizes, list(points), deterministic)
    return out


@torch.library.custom_op("boxwright::deformable_sampling", mutates_args=(), schema=f"({INPUTS}) -> Tensor")
def _sample(
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    sizes: list[int],
    points: list[int],
    deterministic: bool,  # noqa: ARG001 - for the backward
) -> Tensor:
    out = value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    if out.numel():
        inputs = (value.contiguous(), locations.contiguous(), weights.contiguous())
        _launch(_forward_kernel, sizes, points, inputs, (out,))
    return out


@torch.library.custom_op(
    "boxwright::deformable_sampling_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {INPUTS}) -> (Tensor, Tensor, Tensor)",
)
def _sample_backward(
    grad: Tensor,
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    sizes: list[int],
    points: list[int],
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    dtype = torch.promote_types(value.dtype, torch.float32)
    # Deterministically, no kernel writes it.
    value_grad = value.new_zeros((0,) if deterministic and grad.numel() else value.shape, dtype=dtype)
    locations_grad, weights_grad = torch.empty_like(locations), torch.empty_like(weights)
    if grad.numel():
        outputs = (grad.contiguous(), value_grad, locations_grad, weights_grad)
        _launch(_backward_kernel, sizes, points, inputs, outputs, ATOMIC=not deterministic)
        if deterministic:
            shapes = list(zip(sizes[::2], sizes[1::2], strict=True))
            by_head = grad.to(dtype).unflatten(2, value.shape[2:]).transpose(1, 2).flatten(0, 2)
            corners = find_corners(locations.to(dtype), shapes, points)
            value_grad = value_gradient(by_head, corners, head_by_head(weights.to(dtype)), shapes)
    return value_grad.to(value.dtype).contiguous(), locations_grad, weights_grad


@_sample.register_fake
def _(value: Tensor, locations: Tensor, *_: Any) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


@_sample_backward.register_fake
def _(_: Tensor, value: Tensor, locations: Tensor, weights: Tensor, *__: Any) -> tuple[Tensor, Tensor, Tensor]:
    return value.new_empty(value.shape), locations.new_empty(locations.shape), weights.new_empty(weights.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    *tensors, ctx.sizes, ctx.points, ctx.deterministic = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
    options = ctx.sizes, ctx.points, ctx.deterministic
    value_grad, locations_grad, weights_grad = _sample_backward(grad, *ctx.saved_tensors, *options)
    return value_grad, locations_grad, weights_grad, None, None, None


_sample.register_autograd(_differentiate, setup_context=_keep)


def _launch(
    kernel: Any,
    sizes: Sequence[int],
    points: Sequence[int],
    inputs: tuple[Tensor, Tensor, Tensor],
    others: tuple[Tensor, ...],
    **options: bool,
) -> None:
    value, locations, _ = inputs
    _, t, m, d = value.shape
    b, q = locations.shape[:2]
    block_d = triton.next_power_of_2(d)
    block = max(1, NUMBERS_PER_PROGRAM // block_d)
    with torch.cuda.device_of(value):
        kernel[(triton.cdiv(b * q * m, block),)](
            *inputs,
            *others,
            tuple(float(side) for side in sizes),
            b * q * m,
            q * m,
            t,
            HEADS=m,
            LEVELS=len(points),
            POINTS=tuple(points),
            MOST=max(points),
            WIDTH=d,
            PAIRS=block,
            CHANNELS=block_d,
            DTYPE=tl.float64 if value.dtype == torch.float64 else tl.float32,
            # Triton changes its default.
            enable_fp_fusion=True,
            **options,
        )


# In the kernels a pair is a (query, head); pairs run down, channels across. Sizes are h and w of each level in turn, as
# arguments, because a table of them would have to be copied to the GPU, and as floats, because Triton compiles anew for
# integers that are 1 or divisible by 16.


@no_type_check
@triton.jit
def _level(sizes, l, LEVELS: tl.constexpr):  # noqa: N803
    """Select height and width, without an index: unrolling the levels takes four times the registers."""
    height, width = tl.cast(sizes[0], tl.float32), tl.cast(sizes[1], tl.float32)
    for k in tl.static_range(1, LEVELS):
        height, width = tl.where(l == k, sizes[2 * k], height), tl.where(l == k, sizes[2 * k + 1], width)
    return height, width


@no_type_check
@triton.jit
def _points(l, POINTS: tl.constexpr, LEVELS: tl.constexpr):  # noqa: N803
    """Select the first point of a level, the number of its points, and that of all levels."""
    first, count = 0, POINTS[0]
    total = POINTS[0]
    for k in tl.static_range(1, LEVELS):
        first, count = tl.where(l == k, total, first), tl.where(l == k, POINTS[k], count)
        total += POINTS[k]
    return first, count, total


@no_type_check
@triton.jit
def _locate(locations, sample, real, height, width, DTYPE: tl.constexpr):  # noqa: N803
    """Find column and line of the upper left of four cells, and the distance from its center."""
    x = tl.load(locations + 2 * sample, mask=real, other=0).to(DTYPE) * width - 0.5
    y = tl.load(locations + 2 * sample + 1, mask=real, other=0).to(DTYPE) * height - 0.5
    left, top = tl.floor(x), tl.floor(y)
    return left, top, (x - left)[:, None], (y - top)[:, None]


@no_type_check
@triton.jit
def _inside(line, column, height, width):
    # In floating point: what is far away, or not a number, has no integer.
    return (line >= 0) & (line < height) & (column >= 0) & (column < width)


@no_type_check
@triton.jit
def _forward_kernel(
    value, locations, weights, out, sizes, num_pairs, pairs_per_image, tokens,
    HEADS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803
    MOST: tl.constexpr, PAIRS: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr,  # noqa: N803
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    channel = tl.arange(0, CHANNELS)[None, :]
    exists = pair < num_pairs
    table = (pair // pairs_per_image * tokens * HEADS + pair % HEADS) * WIDTH
    total = tl.zeros((PAIRS, CHANNELS), DTYPE)
    first = 0
    for l in range(LEVELS):
        height, width = _level(sizes, l, LEVELS)
        start, count, total_points = _points(l, POINTS, LEVELS)
        for p in tl.static_range(MOST):
            sample = pair * total_points + start + p
            real = exists & (p < count)
            left, top, right, down = _locate(locations, sample, real, height, width, DTYPE)
            by = tl.load(weights + sample, mask=real, other=0).to(DTYPE)[:, None]
            for corner in tl.static_range(4):
                line, column = top + corner // 2, left + corner % 2
                token = first + line.to(tl.int32) * width.to(tl.int32) + column.to(tl.int32)
                at = (table + token.to(tl.int64) * (HEADS * WIDTH))[:, None] + channel
                mask = (real & _inside(line, column, height, width))[:, None] & (channel < WIDTH)
                fraction = (right if corner % 2 else 1 - right) * (down if corner // 2 else 1 - down)
                total += by * fraction * tl.load(value + at, mask=mask, other=0).to(DTYPE)
        first += (height * width).to(tl.int32)
    tl.store(out + pair[:, None] * WIDTH + channel, total, mask=exists[:, None] & (channel < WIDTH))


@no_type_check
@triton.jit
def _backward_kernel(
    value, locations, weights, grad, value_grad, locations_grad, weights_grad, sizes,
    num_pairs, pairs_per_image, tokens,
    HEADS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr, WIDTH: tl.constexpr,  # noqa: N803
    MOST: tl.constexpr, PAIRS: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr,  # noqa: N803
    ATOMIC: tl.constexpr,  # noqa: N803
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    channel = tl.arange(0, CHANNELS)[None, :]
    exists = pair < num_pairs
    table = (pair // pairs_per_image * tokens * HEADS + pair % HEADS) * WIDTH
    mask = exists[:, None] & (channel < WIDTH)
    change = tl.load(grad + pair[:, None] * WIDTH + channel, mask=mask, other=0).to(DTYPE)
    first = 0
    for l in range(LEVELS):
        height, width = _level(sizes, l, LEVELS)
        start, count, total_points = _points(l, POINTS, LEVELS)
        for p in tl.static_range(MOST):
            sample = pair * total_points + start + p
            real = exists & (p < count)
            left, top, right, down = _locate(locations, sample, real, height, width, DTYPE)
            by = tl.load(weights + sample, mask=real, other=0).to(DTYPE)
            sampled = tl.zeros((PAIRS, CHANNELS), DTYPE)
            slope_right = tl.zeros((PAIRS, CHANNELS), DTYPE)
            slope_down = tl.zeros((PAIRS, CHANNELS), DTYPE)
            for corner in tl.static_range(4):
                line, column = top + corner // 2, left + corner % 2
                token = first + line.to(tl.int32) * width.to(tl.int32) + column.to(tl.int32)
                at = (table + token.to(tl.int64) * (HEADS * WIDTH))[:, None] + channel
                mask = (real & _inside(line, column, height, width))[:, None] & (channel < WIDTH)
                across, along = (right if corner % 2 else 1 - right), (down if corner // 2 else 1 - down)
                here = tl.load(value + at, mask=mask, other=0).to(DTYPE)
                sampled += across * along * here
                slope_right += (along if corner % 2 else -along) * here
                slope_down += (across if corner // 2 else -across) * here
                if ATOMIC:
                    tl.atomic_add(value_grad + at, by[:, None] * across * along * change, mask, sem="relaxed")
            tl.store(weights_grad + sample, tl.sum(change * sampled, 1), mask=real)
            tl.store(locations_grad + 2 * sample, by * tl.sum(change * slope_right, 1) * width, mask=real)
            tl.store(locations_grad + 2 * sample + 1, by * tl.sum(change * slope_down, 1) * height, mask=real)
        first += (height * width).to(tl.int32)
