"""Forms that boxes may have in a file: order and meaning of their four numbers, and the unit of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

BoxLayout = Literal["left_top", "corners", "centers", "swapped"]
"""Left, top, width, height; two corners; center, width, height; top, left, height, width."""

Unit = Literal["pixels", "fractions", "percentages", "stated", "scaled"]
"""Pixels; fractions or percentages of the image's sides; pixels of the size that the file states, or of another one."""

FEWEST = 3
"""Boxes that a form is recognized by, at least."""

MANY_MISFITS = 0.2
"""Ratio of boxes without area or beyond their image from which on they cannot be as they stand."""

_NEARLY_ALL = 0.95

_FEW_MISFITS = 0.03
"""Ratio of misfits from which on another form counts that leaves at most a twentieth of them."""

_FEWEST_MISFITS = 10
_MOST_LEFT = 0.05

_FEWEST_PERCENTAGES = 20
_LARGE = 200
"""Side of images, in pixels, in which boxes hardly all end below 100 by chance."""

_REACHED = 0.8
"""Ratio of the image's sides that some box reaches, where boxes are all of an image."""

_LEAST_SCALE = 1.2
_SCALES_APART = 1.05


class FileBoxes(NamedTuple):
    """All boxes of a split as its file has them, with those that were dropped.

    Args:
        xywh: the four numbers of each box, as if they were left, top, width and height.
        sizes: (width, height) of each box's image.
        stated_sizes: (width, height) of each box's image in the file; its own where the file states none.
    """

    xywh: Float64[np.ndarray, "n 4"]
    sizes: Float64[np.ndarray, "n 2"]
    stated_sizes: Float64[np.ndarray, "n 2"]

    def fit(self) -> Bool[np.ndarray, " n"]:
        """Mark boxes that have an area and lie in their image as they stand, but for a pixel."""
        return _fit(self.xywh, self.sizes)


@dataclass(frozen=True)
class BoxForm:
    """A form of boxes.

    Args:
        unit: of the numbers.
        layout: of the numbers; None where several fit alike.
        scale: about, of boxes for images of another size that the file does not state.
    """

    unit: Unit
    layout: BoxLayout | None
    scale: float | None = None

    @property
    def is_clear(self) -> bool:
        """Boxes in this form can be converted."""
        return self.layout is not None and self.unit != "scaled"

    def convert(self, boxes: FileBoxes) -> Float64[np.ndarray, "n 4"]:
        """Return left, top, width and height in pixels of each box, which needs a form that is clear."""
        assert self.layout is not None
        return _CONVERSIONS[self.layout](_to_pixels(self.unit, boxes))


def recognize_form(boxes: FileBoxes) -> BoxForm | None:
    """Find the form that all boxes of a split have, other than left, top, width and height in pixels.

    Read as they stand, the boxes do not fit into their images, or fill a part of them only; read in the other form,
    nearly all fit. None where they are as they should be, or nothing explains them.
    """
    if len(boxes.xywh) < FEWEST:
        return None
    low, high = boxes.xywh.min(1), boxes.xywh.max(1)
    if _most((low >= -0.001) & (high <= 1.001)) and boxes.sizes.min() > 1:
        return BoxForm("fractions", _best_layout(boxes, "fractions"))
    if (form := _recognize_percentages(boxes)) or (form := _recognize_stated_size(boxes)):
        return form
    misfits = int((~boxes.fit()).sum())
    is_few = misfits < max(MANY_MISFITS * len(low), FEWEST)
    if is_few and misfits < max(_FEW_MISFITS * len(low), _FEWEST_MISFITS):
        return None
    counts = _misfits(boxes, "pixels", ("corners", "centers", "swapped"))
    most = _MOST_LEFT * (misfits if is_few else len(low))
    layout = _clear_minimum(counts, most)
    if layout is not None:
        return BoxForm("pixels", layout)
    return None if is_few or stray_boxes(boxes) else _recognize_scale(boxes)


def stray_boxes(boxes: FileBoxes) -> dict[str, Bool[np.ndarray, " n"]]:
    """Find boxes in another form than the rest of their split, which they can only be told from by not fitting.

    Returns:
        A mask of the boxes for each form, by its name: corners, fractions.
    """
    misfits = ~boxes.fit()
    corners = misfits & _fit(_CONVERSIONS["corners"](boxes.xywh), boxes.sizes)
    # Nothing else explains so many of those that do not fit.
    strays = {"corners": corners} if FEWEST <= corners.sum() >= _NEARLY_ALL * misfits.sum() else {}
    fractions = (boxes.xywh >= 0).all(1) & (boxes.xywh <= 1.001).all(1) & (boxes.xywh[:, 2:] > 0).all(1)
    return strays | ({"fractions": fractions} if fractions.sum() >= FEWEST else {})


def _recognize_percentages(boxes: FileBoxes) -> BoxForm | None:
    if len(boxes.xywh) < _FEWEST_PERCENTAGES or boxes.sizes.min() < _LARGE:
        return None
    if not _most(((boxes.xywh >= -0.01) & (boxes.xywh <= 100.01)).all(1)):
        return None
    layout = _best_layout(boxes, "percentages")
    reached = _far_edges(BoxForm("percentages", layout or "left_top").convert(boxes), boxes.sizes).max(0)
    fits = _most(_fit(_CONVERSIONS[layout or "left_top"](_to_pixels("percentages", boxes)), boxes.sizes))
    return BoxForm("percentages", layout) if fits and reached.min() > _REACHED else None


def _recognize_stated_size(boxes: FileBoxes) -> BoxForm | None:
    """Recognize boxes for images of the size that the file states, which are now all larger or smaller."""
    ratio = boxes.stated_sizes / boxes.sizes
    is_turned = (boxes.stated_sizes == boxes.sizes[:, ::-1]).all(1)
    is_smaller, is_larger = (ratio * _LEAST_SCALE <= 1).all(1), (ratio >= _LEAST_SCALE).all(1)
    if not (_most(is_smaller & ~is_turned) or _most(is_larger & ~is_turned)):
        return None
    if len(ratio) < _FEWEST_MISFITS or not _most(_fit(boxes.xywh, boxes.stated_sizes)):
        return None
    # Boxes that fit into a smaller image are its own, whatever size the file states.
    if is_larger.any() and boxes.fit().mean() > 1 - _FEW_MISFITS:
        return None
    reached = _far_edges(boxes.xywh, boxes.stated_sizes).max(0).min() > _REACHED
    return BoxForm("stated", "left_top") if reached else None


def _recognize_scale(boxes: FileBoxes) -> BoxForm | None:
    """Recognize boxes that reach beyond the right and lower edges by one factor, and not beyond the others."""
    if not _most((boxes.xywh[:, :2] >= -1).all(1) & (boxes.xywh[:, 2:] > 0).all(1)):
        return None
    across, down = np.quantile(_far_edges(boxes.xywh, boxes.sizes), _NEARLY_ALL, axis=0).tolist()
    if min(across, down) < _LEAST_SCALE or max(across, down) > _SCALES_APART * min(across, down):
        return None
    return BoxForm("scaled", "left_top", scale=(across + down) / 2)


def _best_layout(boxes: FileBoxes, unit: Unit) -> BoxLayout | None:
    """Return the layout in which nearly all boxes fit; axes are not told apart where the image is 1 x 1."""
    counts = _misfits(boxes, unit, ("left_top", "corners", "centers"))
    return _clear_minimum(counts, (1 - _NEARLY_ALL) * len(boxes.xywh))


def _misfits(boxes: FileBoxes, unit: Unit, layouts: Sequence[BoxLayout]) -> dict[BoxLayout, int]:
    """Count the boxes that do not fit in each of some layouts."""
    pixels = _to_pixels(unit, boxes)
    return {layout: int((~_fit(_CONVERSIONS[layout](pixels), boxes.sizes)).sum()) for layout in layouts}


def _clear_minimum(counts: Mapping[BoxLayout, int], most: float) -> BoxLayout | None:
    """Return the layout with the fewest misfits; None if it has more than ``most``, or another one nearly as few."""
    (layout, fewest), (_, second) = sorted(counts.items(), key=lambda one: one[1])[:2]
    return layout if fewest <= most and second >= fewest + 2 else None


def _to_pixels(unit: Unit, boxes: FileBoxes) -> Float64[np.ndarray, "n 4"]:
    factors = {
        "fractions": boxes.sizes,
        "percentages": boxes.sizes / 100,
        "stated": boxes.sizes / boxes.stated_sizes,
    }
    return np.asarray(boxes.xywh * np.tile(factors.get(unit, np.ones_like(boxes.sizes)), 2))


def _of_corners(boxes: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def _of_centers(boxes: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), axis=1)


_CONVERSIONS: dict[BoxLayout, Callable[[Float64[np.ndarray, "_n 4"]], Float64[np.ndarray, "_n 4"]]] = {
    "left_top": lambda boxes: boxes,
    "corners": _of_corners,
    "centers": _of_centers,
    "swapped": lambda boxes: boxes[:, [1, 0, 3, 2]],
}


def _far_edges(xywh: Float64[np.ndarray, "n 4"], sizes: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Return the right and lower edge of each box, in sides of its image."""
    return np.asarray((xywh[:, :2] + xywh[:, 2:]) / sizes)


def _fit(xywh: Float64[np.ndarray, "n 4"], sizes: Float64[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    """Mark boxes that have an area and lie in their image, but for a pixel."""
    far = xywh[:, :2] + xywh[:, 2:]
    inside = (xywh[:, :2] >= -1).all(1) & (far <= sizes + 1).all(1)
    # Of a box that lies within a pixel of the image, nothing is left after it is clipped.
    return np.asarray(inside & (far.clip(max=sizes) > xywh[:, :2].clip(min=0)).all(1))


def _most(mask: Any) -> bool:
    return bool(np.mean(mask) >= _NEARLY_ALL)
