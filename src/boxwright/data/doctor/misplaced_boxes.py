"""Boxes that lie in their images, and yet not on their objects: mirrored, turned, or made for smaller images.

Their numbers do not tell. Contrast does: if boxes have no more of it inside than boxes beside them, but would have
where the axes are counted from elsewhere, over many images, that is where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64

from boxwright.data.doctor.box_evidence import ContrastMap, PlacementEvidence
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.doctor.units import BOXES_OF_OTHER_SIZE
from boxwright.data.findings import Finding, FindingKind

MISPLACED_BOXES = FindingKind(
    "misplaced_boxes",
    "error",
    "splits have boxes that lie on their objects only if they are mirrored or turned",
    "look at some, and export them again with x from the left and y from above; --fix leaves them as they are",
)

FEWEST_IMAGES = 10
FIRST_IMAGES = 16
"""Images that are enough where boxes lie as they should."""

MOST_CHOSEN = 64
MOST_BOXES = 10
"""Of an image."""

ENOUGH_AS_THEY_STAND = 5.0
"""Standard errors above chance from which on boxes as they stand are no matter of doubt."""

ENOUGH_OTHERWISE = 8.0
LEAD = 5.0
"""Standard errors by which another placement is better, at least."""

LEAST_MEAN = 0.65

MOST_REACHED = 0.9
"""Fraction of both sides of images beyond which no box ends, where all boxes may be for smaller images."""

ALIKE = 1.1
"""Ratio of these fractions, at most."""

Boxes = Float64[np.ndarray, "n 4"]
Placement = Callable[[Boxes], Boxes]

MIRRORED: dict[str, Placement] = {
    "with y counted from below": lambda boxes: np.stack(
        (boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]), 1
    ),
    "with x counted from the right": lambda boxes: np.stack(
        (1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]), 1
    ),
    "turned by 180 degrees": lambda boxes: 1 - boxes[:, [2, 3, 0, 1]],
    "with x and y swapped": lambda boxes: boxes[:, [1, 0, 3, 2]],
}


def find_misplaced_boxes(objects: ObjectTable, split: str) -> list[Finding]:
    """Find out if boxes of a split lie on their objects only when placed otherwise, by the pixels of some images."""
    index = np.unique(objects.image_index[~objects.crowd])
    if len(index) < FEWEST_IMAGES:
        return []
    chosen = index[np.linspace(0, len(index) - 1, min(MOST_CHOSEN, len(index))).round().astype(np.int64)]
    # The first ones are from all over the split too.
    rounds = -(-len(chosen) // FIRST_IMAGES)
    order = np.concatenate([chosen[start::rounds] for start in range(rounds)])
    scale = _scale(objects)
    placements: dict[str, Placement] = dict(MIRRORED)
    if scale is not None:
        placements["scaled"] = lambda boxes: boxes / scale
    ranks: dict[str, list[float]] = {name: [] for name in ("", *placements)}
    for number, image in enumerate(order.tolist(), start=1):
        _rank(objects, image, placements, ranks)
        if number % FIRST_IMAGES == 0 and PlacementEvidence.of(ranks[""]).standard_errors > ENOUGH_AS_THEY_STAND:
            return []
    return _describe({name: PlacementEvidence.of(values) for name, values in ranks.items()}, split, scale)


def _rank(
    objects: ObjectTable, image: int, placements: Mapping[str, Placement], ranks: Mapping[str, list[float]]
) -> None:
    record = objects.records[image]
    boxes = objects.xyxy[(objects.image_index == image) & ~objects.crowd]
    boxes = boxes[:: -(-len(boxes) // MOST_BOXES)] / np.tile(objects.sizes[image], 2)
    try:
        contrast = ContrastMap(record.read())
    except (OSError, ValueError):  # said by the checks of images
        return
    ranks[""].append(contrast.mean_rank(boxes))
    for name, move in placements.items():
        ranks[name].append(contrast.mean_rank(move(boxes)))


def _scale(objects: ObjectTable) -> float | None:
    """Return the fraction of their images' sides that boxes reach where it is clearly less than all, and alike."""
    across, down = (objects.xyxy[:, 2:] / objects.image_sizes).max(0).tolist()
    if max(across, down) > MOST_REACHED or max(across, down) > ALIKE * min(across, down):
        return None
    return float(max(across, down))


def _describe(evidence: Mapping[str, PlacementEvidence], split: str, scale: float | None) -> list[Finding]:
    own = evidence[""]
    name, best = max(((name, one) for name, one in evidence.items() if name), key=lambda item: item[1].standard_errors)
    if own.standard_errors > ENOUGH_AS_THEY_STAND or min(own.images, best.images) < FEWEST_IMAGES:
        return []
    if best.standard_errors < max(ENOUGH_OTHERWISE, own.standard_errors + LEAD) or best.mean < LEAST_MEAN:
        return []
    seen = f"in {best.images} images, boxes have more contrast than {own.mean:.0%} of those beside them as they stand"
    if name == "scaled":
        detail = f"{seen}, and than {best.mean:.0%} as if images were about {scale:.2g} times as large"
        return [Finding(BOXES_OF_OTHER_SIZE, split, detail)]
    return [Finding(MISPLACED_BOXES, split, f"{seen}, and than {best.mean:.0%} {name}")]
