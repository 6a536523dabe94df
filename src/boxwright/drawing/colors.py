"""Colors of classes, and of letters on them."""

from __future__ import annotations

Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)

# The first eight are distinct to readers with any common color vision.
# Source: Paul Tol, Color Schemes, SRON technical note 2021: "vibrant", with a yellow and a purple added. Each of the
# others is the farthest from all before it: the least CIEDE2000 of normal vision, and twice that of deuteranopia and
# protanopia (Machado et al., 2009), among colors of CIELAB lightness 28 to 88 and chroma 36 or more.
_PALETTE: tuple[Color, ...] = (
    (0, 119, 187),
    (238, 119, 51),
    (0, 153, 136),
    (238, 51, 119),
    (51, 187, 238),
    (221, 170, 51),
    (170, 68, 153),
    (204, 51, 17),
    (150, 240, 165),
    (0, 0, 255),
    (255, 165, 195),
    (135, 15, 45),
    (150, 120, 255),
    (0, 240, 240),
    (90, 120, 60),
    (75, 60, 120),
    (225, 225, 0),
    (165, 180, 105),
    (210, 120, 195),
    (120, 45, 0),
    (165, 45, 255),
    (120, 45, 90),
    (60, 195, 150),
    (210, 105, 90),
)


def class_color(label: int) -> Color:
    """Return the color of a class, the same in every image and chart: 24 of them, then from the start again."""
    return _PALETTE[label % len(_PALETTE)]


def letter_color(background: Color) -> Color:
    """Return black or white, whichever has more contrast on a color: at least 4.5.

    **Source**: WCAG 2.2, relative luminance and contrast ratio.
    """
    luminance = relative_luminance(background)
    return BLACK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else WHITE


def relative_luminance(color: Color) -> float:
    """Compute the relative luminance of an sRGB color, from 0 for black to 1 for white."""
    red, green, blue = (_linear(value / 255) for value in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)
