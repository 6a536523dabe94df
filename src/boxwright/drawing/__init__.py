"""Boxes and masks drawn on images, so that objects and labels can be seen in crowded ones too."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boxwright.drawing.colors import class_color
    from boxwright.drawing.comparison import draw_comparison
    from boxwright.drawing.detections import draw_detections
    from boxwright.drawing.drawing_queue import DrawingQueue
    from boxwright.drawing.ground_truth import draw_ground_truth
    from boxwright.drawing.missing_glyphs import describe_missing_glyphs
    from boxwright.drawing.outcomes import Outcomes, match_to_ground_truth
    from boxwright.drawing.saving import drawing_uri, save_drawing, save_drawings
    from boxwright.drawing.style import Drawings, DrawingStyle

__all__ = [
    "DrawingQueue",
    "DrawingStyle",
    "Drawings",
    "Outcomes",
    "class_color",
    "describe_missing_glyphs",
    "draw_comparison",
    "draw_detections",
    "draw_ground_truth",
    "drawing_uri",
    "match_to_ground_truth",
    "save_drawing",
    "save_drawings",
]

_HOMES = {
    "DrawingQueue": "drawing_queue",
    "DrawingStyle": "style",
    "Drawings": "style",
    "Outcomes": "outcomes",
    "class_color": "colors",
    "describe_missing_glyphs": "missing_glyphs",
    "draw_comparison": "comparison",
    "draw_detections": "detections",
    "draw_ground_truth": "ground_truth",
    "drawing_uri": "saving",
    "match_to_ground_truth": "outcomes",
    "save_drawing": "saving",
    "save_drawings": "saving",
}
"""The module of each public name, imported on demand (PEP 562): detections are drawn without torch."""


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"boxwright.drawing.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
