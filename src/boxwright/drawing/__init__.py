"""Boxes and masks drawn on images, so that objects and labels can be seen in crowded ones too."""

from boxwright.drawing.colors import class_color
from boxwright.drawing.comparison import draw_comparison
from boxwright.drawing.detections import draw_detections, draw_ground_truth
from boxwright.drawing.drawing_queue import DrawingQueue
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
