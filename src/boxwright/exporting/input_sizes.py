"""Sizes of network inputs, computed in a graph from those of images, equal to ``boxwright_runtime.size_rules``."""

from __future__ import annotations

import math

from boxwright.exporting.exact_arithmetic import (
    LARGEST_SIDE,
    DoubleQuotient,
    divide_product,
    largest_power,
    round_half_even,
    select_power,
)
from boxwright.exporting.graph_writer import Value
from boxwright_runtime.input_format import CENTER_FRACTION, InputFormat

Sides = tuple[Value, Value]
"""Height and width: whole numbers in float32, of shape (n, 1)."""


def write_input_size(height: Value, width: Value, input_format: InputFormat) -> Sides:
    """Compute the (height, width) that an image of this size is resized to, as ``InputFormat.input_size`` does.

    Args:
        height: of images, whole numbers in float32 up to ``LARGEST_SIDE``, of shape (n, 1).
        width: likewise.
        input_format: the format of the network input.
    """
    writer, image_size = height.writer, input_format.image_size
    if input_format.resize == "letterbox":
        longest = height.at_least(width)
        scale = _scale(writer.constant([[image_size]]), longest, (image_size, image_size))
        return (
            scale.floor_of_product(height, writer.constant([[image_size]])).at_least(1),
            scale.floor_of_product(width, writer.constant([[image_size]])).at_least(1),
        )
    if input_format.resize != "shortest_side":
        return writer.constant([[image_size]]), writer.constant([[image_size]])
    short, long = height.at_most(width), height.at_least(width)
    shortest, longest = _resize_sides(short, long, input_format)
    is_tall = height > width
    return writer.where(is_tall, longest, shortest), writer.where(is_tall, shortest, longest)


def write_center_window(height: Value, width: Value) -> tuple[Value, Value, Value]:
    """Compute (top, left, side) of the part of an image that ``center_crop`` shows, as ``InputFormat.window`` does.

    All numbers between are multiples of a sixteenth, which float32 holds exactly.
    """
    shown = height.at_most(width) * CENTER_FRACTION
    side = shown.round().at_least(1)
    top, left = (((length - shown) / 2).round().at_most(length - side) for length in (height, width))
    return top, left, side


def _resize_sides(short: Value, long: Value, input_format: InputFormat) -> Sides:
    """Compute the shortest and the longest side of an input that keeps the aspect ratio."""
    image_size, max_size = input_format.image_size, input_format.max_size
    writer = short.writer
    free = divide_product(long, writer.constant([[image_size]]), short)
    if input_format.size_rule in ("torchvision", "mmcv"):
        offset = 0.5 if input_format.size_rule == "mmcv" else 0.0
        dividend, divisor = writer.constant([[image_size]]), short
        if max_size is not None:
            is_bound = free.exceeds(max_size)
            dividend, divisor = writer.where(is_bound, max_size, dividend), writer.where(is_bound, long, short)
        scale = _scale(dividend, divisor, (image_size, max_size or image_size))
        shortest, longest = (scale.floor_of_product(side, dividend, offset).at_least(1) for side in (short, long))
        return shortest, longest
    if max_size is None:
        shortest, longest = writer.constant([[image_size]]), free.whole
    else:
        bound = _bound_detr if input_format.size_rule == "detr" else _bound_transformers
        is_bound = free.exceeds(max_size)
        bound_shortest, bound_longest = bound(short, long, max_size)
        shortest = writer.where(is_bound, bound_shortest, image_size)
        longest = writer.where(is_bound, bound_longest, free.whole)
    if input_format.size_rule == "transformers":
        is_same = shortest.equals(short)
        longest = writer.where(is_same, long, longest.at_least(1))
        shortest = shortest.at_least(1)
    return shortest, longest


def _bound_detr(short: Value, long: Value, max_size: int) -> Sides:
    """Compute both sides where ``max_size`` limits the longest: it follows from the shortest, which is rounded."""
    writer = short.writer
    shortest = round_half_even(divide_product(short, writer.constant([[max_size]]), long), long)
    longest = divide_product(long, shortest, short).whole
    is_thin = shortest < 1
    return writer.where(is_thin, 1, shortest), writer.where(is_thin, max_size, longest)


def _bound_transformers(short: Value, long: Value, max_size: int) -> Sides:
    """Compute both sides where ``max_size`` limits the longest: the longest is that, or by rounding one less.

    Doubles compute e = max_size * short / long, then e * long, then that / short. Where e * long is below
    max_size * short, the last quotient is below max_size whatever its rounding.
    """
    writer = short.writer
    exact = divide_product(short, writer.constant([[max_size]]), long)
    high, low = math.floor(math.log2(max_size)), math.floor(math.log2(max_size / LARGEST_SIDE))
    # Below 1, the product of the quotient is small enough for float32.
    power = writer.where(
        exact.whole >= 1,
        largest_power(exact.whole, 1.0, range(high + 1)),
        largest_power(short * max_size, long, range(low, 1)),
    )
    quotient = DoubleQuotient(exact.remainder, long, power, (low, high))
    # The largest power of two in max_size * short, without that product, which float32 does not hold.
    exponents = range(high, high + LARGEST_SIDE.bit_length() + 1)
    limits = writer.constant([[math.ceil(2**exponent / max_size) for exponent in exponents]])
    product_power = select_power(short >= limits, exponents)
    limit = product_power / power
    if 2**high == max_size:
        limit = limit * writer.where((short * max_size).equals(product_power), 0.5, 1.0)
    longest = max_size - (quotient.error * 2 > limit).to_float()
    return round_half_even(exact, long), longest


def _scale(dividend: Value, divisor: Value, dividends: tuple[int, int]) -> DoubleQuotient:
    """Divide an image size by the side of an image as doubles do.

    Args:
        dividend: one of two numbers.
        divisor: a side.
        dividends: the smaller and the larger of the two.
    """
    low, high = math.floor(math.log2(dividends[0] / LARGEST_SIDE)), math.floor(math.log2(dividends[1]))
    power = largest_power(dividend, divisor, range(low, high + 1))
    return DoubleQuotient(dividend, divisor, power, (low, high))
