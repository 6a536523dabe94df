"""Options of commands that draw boxes: labels, lines, letters, legend."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boxwright.drawing import DrawingStyle

DRAWINGS = "predictions"
"""Folder for drawings where none is named."""


def add_style_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``DrawingStyle``."""
    group = parser.add_argument_group("drawings")
    group.add_argument(
        "--labels",
        choices=("full", "short", "dots", "none"),
        default="full",
        help="names and scores, numbers of classes, dots, or none; shorter ones where objects would be hidden "
        "(default: full)",
    )
    group.add_argument("--line-width", metavar="N", type=int, help="of boxes, in pixels (default: by their size)")
    group.add_argument("--font-size", metavar="N", type=int, help="of labels, in pixels (default: by the boxes' size)")
    group.add_argument(
        "--legend",
        action=argparse.BooleanOptionalAction,
        help="classes below the image (default: where a label is no name)",
    )
    group.add_argument("--font", metavar="FILE", help="font to use before those of the system (.ttf, .otf, .ttc)")


def read_style(options: argparse.Namespace) -> DrawingStyle:
    """Make the style that was typed.

    Raises:
        FileNotFoundError: there is no such font.
        ValueError: an option is out of range, or the file is no font.
    """
    from boxwright.drawing import DrawingStyle

    return DrawingStyle(
        labels=options.labels,
        line_width=options.line_width,
        font_size=options.font_size,
        legend=options.legend,
        font=options.font,
    )
