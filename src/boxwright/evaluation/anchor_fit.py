"""Objects and the anchors that are to be trained on them: shapes and sizes that no anchor has."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from boxwright.contracts import AnchorHead
from boxwright.data.crop import Crop
from boxwright.data.records import DetectionData
from boxwright.ops.boxes import area
from boxwright.structures import AnchorFits
from boxwright_runtime.input_format import InputFormat


@dataclass(frozen=True, eq=False, kw_only=True)
class AnchorSurvey:
    """Objects by class, compared with the anchors of a head.

    Args:
        positive_iou: IoU from which on every such anchor is trained on an object.
        negative_iou: IoU below which none is, but for the single best one.
        largest_side: square root of the largest anchor's area, in pixels of the network input.
        total: objects.
        below_positive: objects whose best anchor is below ``positive_iou``.
        below_negative: objects whose best anchor is below ``negative_iou``.
        larger: objects with a larger area than any anchor.
    """

    positive_iou: float
    negative_iou: float
    largest_side: float
    total: Int64[np.ndarray, " k"]
    below_positive: Int64[np.ndarray, " k"]
    below_negative: Int64[np.ndarray, " k"]
    larger: Int64[np.ndarray, " k"]


@torch.no_grad()
def survey_anchors(
    data: DetectionData, head: object, input_format: InputFormat, device: torch.device
) -> AnchorSurvey | None:
    """Compare all objects, as evaluation shows them, with the anchors of a head.

    Args:
        data: the images and their objects.
        head: of the detector.
        input_format: of the detector.
        device: of the head.

    Returns:
        None where the head has no anchors that are matched by IoU.
    """
    if not isinstance(head, AnchorHead):
        return None
    counts = np.zeros((4, len(data.categories)), np.int64)
    fits = AnchorFits(torch.zeros(0), 0.0, 0.0, 0.0)
    for size, (boxes, labels) in _by_input_size(data, input_format).items():
        fits_of_size = head.anchor_fits(torch.from_numpy(boxes).to(device), size)
        if fits_of_size is None:
            return None
        fits = fits_of_size
        best, areas = fits.best.cpu().numpy(), area(torch.from_numpy(boxes)).numpy()
        masks = (
            best >= 0,
            best < fits.positive_iou,
            best < fits.negative_iou,
            areas > fits.largest_side**2 * (1 + 1e-6),
        )
        for row, mask in zip(counts, masks, strict=True):
            row += np.bincount(labels[mask], minlength=counts.shape[1])
    total, below_positive, below_negative, larger = counts
    return AnchorSurvey(
        positive_iou=fits.positive_iou,
        negative_iou=fits.negative_iou,
        largest_side=fits.largest_side,
        total=total,
        below_positive=below_positive,
        below_negative=below_negative,
        larger=larger,
    )


def _by_input_size(
    data: DetectionData, input_format: InputFormat
) -> dict[tuple[int, int], tuple[np.ndarray, Int64[np.ndarray, " n"]]]:
    """Return boxes in pixels of the network input, and labels, by the (height, width) of the padded input."""
    boxes, labels = defaultdict(list), defaultdict(list)
    for record in data.records:
        single = ~record.crowd
        if not single.any():
            continue
        shape = record.height, record.width
        crop = Crop(input_format.window(*shape), input_format.input_size(*shape))
        size = input_format.padded_size(*crop.input_size)
        boxes[size].append(crop.boxes(record.boxes()[single]))
        labels[size].append(record.labels[single])
    return {size: (np.concatenate(boxes[size]), np.concatenate(labels[size])) for size in boxes}
