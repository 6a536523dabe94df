"""Input formats in words, and what differs between two."""

from __future__ import annotations

from dataclasses import replace

import pytest

from boxwright.compose.options import Naming, parse_options
from boxwright.data.format_report import COLOR_OPTIONS, describe_format, format_differences
from boxwright_runtime.input_format import InputFormat

TORCHVISION = InputFormat(
    image_size=800,
    resize="shortest_side",
    max_size=1333,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    size_rule="torchvision",
    antialias=False,
    resize_floats=True,
    pad_multiple=32,
)


@pytest.mark.parametrize(
    ("input_format", "lines"),
    [
        (
            InputFormat(),
            [
                "size: 640 x 640 pixels, whatever the shape of the image",
                "resizing: bilinear, with antialiasing",
                "colors: RGB in [0, 1]",
            ],
        ),
        (
            TORCHVISION,
            [
                "size: shortest side 800 pixels, the longest at most 1333; rounded as by torchvision",
                "resizing: bilinear, without antialiasing, not rounded to bytes",
                "colors: RGB in [0, 1], less the mean 0.485 0.456 0.406, divided by 0.229 0.224 0.225",
                "padding: to a multiple of 32, with the mean color",
            ],
        ),
        (
            InputFormat(image_size=512, resize="letterbox", mean=(0.5, 0.5, 0.5), channel_order="bgr", antialias=False),
            [
                "size: as large as fits into 512 x 512 pixels; sides rounded down",
                "resizing: bilinear, without antialiasing, as OpenCV",
                "colors: BGR in [0, 1], less the mean 0.5 0.5 0.5, divided by 1 1 1 (of red, green, blue)",
                "padding: to 512 x 512 pixels, with the mean color",
            ],
        ),
        (
            InputFormat(image_size=224, resize="center_crop"),
            [
                "size: 224 x 224 pixels of the central square, 0.875 of the shortest side",
                "resizing: bilinear, with antialiasing",
                "colors: RGB in [0, 1]",
            ],
        ),
    ],
)
def test_descriptions(input_format: InputFormat, lines: list[str]) -> None:
    assert describe_format(input_format) == lines


def test_differences_say_both_values_and_what_to_type() -> None:
    changed = replace(TORCHVISION, antialias=True, mean=(0.5, 0.5, 0.5), pad_multiple=1, channel_order="bgr")
    assert format_differences(TORCHVISION, changed) == [
        "mean 0.485,0.456,0.406 became 0.5,0.5,0.5: --input.mean 0.485,0.456,0.406",
        "channel_order rgb became bgr: --input.channel_order rgb",
        "antialias false became true: --input.antialias false",
        "pad_multiple 32 became 1: --input.pad_multiple 32",
    ]
    assert [line.split()[0] for line in format_differences(TORCHVISION, changed, COLOR_OPTIONS)] == [
        "mean",
        "channel_order",
    ]


def test_sizes_may_change_in_proportion() -> None:
    assert format_differences(TORCHVISION, TORCHVISION.at_size(400)) == []
    assert format_differences(TORCHVISION, replace(TORCHVISION, image_size=400)) == [
        "max_size 666 became 1333: --input.max_size 666"
    ]
    # The rounding of sides says nothing of a square.
    square = InputFormat(image_size=320)
    assert format_differences(square, replace(square, size_rule="mmcv", image_size=640)) == []
    assert format_differences(TORCHVISION, replace(square, size_rule="torchvision"), ["resize", "max_size"]) == [
        "resize shortest_side became square: --input.resize shortest_side",
        "max_size 1333 became null: --input.max_size 1333",
    ]


def test_typing_what_it_says_undoes_all_differences() -> None:
    other = InputFormat(image_size=800, antialias=True, std=(2.0, 2.0, 2.0), pad_multiple=7)
    typed = dict(line.partition("--input.")[2].split(" ") for line in format_differences(TORCHVISION, other))
    naming = Naming(
        owner="'input'", address="input", source="test", overridden=frozenset(), renamed={}, renamed_values={}
    )
    options = parse_options(InputFormat, {}, naming, overrides=typed)
    assert InputFormat(**{**vars(other), **{name: options[name] for name in typed}}) == TORCHVISION
