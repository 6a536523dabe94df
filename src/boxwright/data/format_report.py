"""Input formats in words: what a model sees of an image, and where that is not what it was trained on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from boxwright_runtime.input_format import CENTER_FRACTION, InputFormat

COLOR_OPTIONS = ("mean", "std", "channel_order")
"""Options that a backbone by itself depends on, whatever size its images have."""


def describe_format(input_format: InputFormat) -> list[str]:
    """Describe the way from an image to the network input in lines: size, resizing, colors, and padding if any."""
    parts = {
        "size": _describe_size(input_format),
        "resizing": _describe_resampling(input_format),
        "colors": _describe_colors(input_format),
        "padding": _describe_padding(input_format),
    }
    return [f"{name}: {text}" for name, text in parts.items() if text is not None]


def format_differences(expected: InputFormat, actual: InputFormat, options: Collection[str] | None = None) -> list[str]:
    """List options in which a format differs from the one that weights were trained with.

    Each line says both values, and what to type for the expected one: ``mean 0.5,0.5,0.5 became 0.0,0.0,0.0:
    --input.mean 0.5,0.5,0.5``. The image size may change freely, and the maximal size in proportion to it.

    Args:
        expected: of the weights.
        actual: in use.
        options: of the input format, which are compared; all but the image size where None.
    """
    lines = []
    for name in _compared(expected, options):
        there, here = getattr(expected, name), getattr(actual, name)
        if name == "max_size" and actual.resize == expected.resize:
            there = expected.resize_rule(actual.image_size).max_size
        if there != here:
            lines.append(f"{name} {as_typed(there)} became {as_typed(here)}: --input.{name} {as_typed(there)}")
    return lines


def note_differences(expected: InputFormat, actual: InputFormat) -> list[str]:
    """Put the differences into one line of warning; no line where there are none."""
    differences = format_differences(expected, actual)
    if not differences:
        return []
    return [f"the weights come with another preprocessing, without which they find less: {'; '.join(differences)}"]


def _compared(expected: InputFormat, options: Collection[str] | None) -> list[str]:
    names = [field.name for field in fields(InputFormat) if field.name != "image_size"]
    if expected.resize != "shortest_side":
        names.remove("size_rule")
    return [name for name in names if options is None or name in options]


def as_typed(value: Any) -> str:
    """Write a value as one types it on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(as_typed(one) for one in value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _describe_size(input_format: InputFormat) -> str:
    side = input_format.image_size
    if input_format.resize == "square":
        return f"{side} x {side} pixels, whatever the shape of the image"
    if input_format.resize == "center_crop":
        return f"{side} x {side} pixels of the central square, {CENTER_FRACTION:g} of the shortest side"
    if input_format.resize == "letterbox":
        return f"as large as fits into {side} x {side} pixels; sides rounded down"
    longest = "" if input_format.max_size is None else f", the longest at most {input_format.max_size}"
    return f"shortest side {side} pixels{longest}; rounded as by {input_format.size_rule}"


def _describe_resampling(input_format: InputFormat) -> str:
    if input_format.resize_floats:
        return f"bilinear, {'with' if input_format.antialias else 'without'} antialiasing, not rounded to bytes"
    return "bilinear, with antialiasing" if input_format.antialias else "bilinear, without antialiasing, as OpenCV"


def _describe_colors(input_format: InputFormat) -> str:
    order = input_format.channel_order.upper()
    if not any(input_format.mean) and set(input_format.std) == {1.0}:
        return f"{order} in [0, 1]"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (input_format.mean, input_format.std))
    given = "" if order == "RGB" else " (of red, green, blue)"
    return f"{order} in [0, 1], less the mean {mean}, divided by {std}{given}"


def _describe_padding(input_format: InputFormat) -> str | None:
    parts = []
    if input_format.resize == "letterbox":
        parts.append(f"to {input_format.image_size} x {input_format.image_size} pixels")
    if input_format.pad_multiple > 1:
        parts.append(f"to a multiple of {input_format.pad_multiple}")
    return f"{', then '.join(parts)}, with the mean color" if parts else None
