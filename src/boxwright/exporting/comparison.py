"""Detections of a file against those of the detector that it was made from, on the same network inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from boxwright.data.images import pad_inputs
from boxwright.detector import Detector
from boxwright.prediction import evaluation_mode
from boxwright_runtime.structures import ImageSize

_ALIKE = 0.05
"""Difference of scores, and of boxes by their size, up to which two detections of a class may be the same one."""

_NOISE = 1e-6
"""Change of network inputs, in their values: what the rounding of a few layers makes of them."""

_MOST_SENSITIVE = 0.1
"""Fraction of the detections that this may move; beyond, there is nothing to compare with."""


class DetectionRows(NamedTuple):
    """Detections of one image, best first, in pixels of the original image.

    ``masks`` are probabilities of cells, or None. ``is_full`` is True where there is no room for more of them.
    """

    boxes: Float32[np.ndarray, "n 4"]
    scores: Float32[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    masks: Float32[np.ndarray, "n s t"] | None
    is_full: bool


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Differences up to which two detections agree.

    Args:
        box: of a corner, in longest sides of the box.
        score: of scores.
        mask: of a mask's mean over its cells.
        fraction: of all detections that may differ by more, or have no counterpart: where two candidates are all but
            equal, rounding decides which is kept. One detection may in any case.
    """

    box: float = 1e-3
    score: float = 5e-4
    mask: float = 1e-2
    fraction: float = 0.02


FLOAT32_TOLERANCE = Tolerance()


@dataclass(frozen=True, kw_only=True)
class DetectionAgreement:
    """Comparison of detections.

    Args:
        total: number of detections of the model.
        num_matched: pairs that agree.
        num_apart: pairs of which one is close to the other, but beyond the tolerance.
        num_missing: detections of either side without a counterpart.
        num_cut: likewise, with a score that is all but equal to the lowest one of a full list.
        num_sensitive: detections that the model itself moves beyond the tolerance where its network inputs change by a
            millionth. Counted only where too many differ.
        box_difference: largest one of a matched pair, in longest sides of the box.
        score_difference: likewise, of scores.
        mask_difference: likewise, of masks.
    """

    total: int = 0
    num_matched: int = 0
    num_apart: int = 0
    num_missing: int = 0
    num_cut: int = 0
    num_sensitive: int = 0
    box_difference: float = 0.0
    score_difference: float = 0.0
    mask_difference: float = 0.0

    def __add__(self, other: DetectionAgreement) -> DetectionAgreement:
        """Put two comparisons together."""
        return DetectionAgreement(
            total=self.total + other.total,
            num_matched=self.num_matched + other.num_matched,
            num_apart=self.num_apart + other.num_apart,
            num_missing=self.num_missing + other.num_missing,
            num_cut=self.num_cut + other.num_cut,
            num_sensitive=self.num_sensitive + other.num_sensitive,
            box_difference=max(self.box_difference, other.box_difference),
            score_difference=max(self.score_difference, other.score_difference),
            mask_difference=max(self.mask_difference, other.mask_difference),
        )

    def is_within(self, tolerance: Tolerance) -> bool:
        """Tell whether so few detections differ that near-ties, and rounding in the model itself, explain them."""
        is_matched = self.num_matched > 0 or self.total == 0
        sensitive = min(self.num_sensitive, _MOST_SENSITIVE * self.total)
        return is_matched and self.num_differing <= max(1, tolerance.fraction * self.total) + sensitive

    @property
    def num_differing(self) -> int:
        """Count the detections that differ by more than the tolerance, or have no counterpart."""
        return self.num_apart + self.num_missing

    def describe(self) -> str:
        """Say it in half a line."""
        parts = [f"{self.num_matched:,} of {self.total:,} detections agree"]
        if self.num_matched:
            parts.append(f"boxes to {self.box_difference:.1e} of their size, scores to {self.score_difference:.1e}")
        if self.num_cut:
            parts.append(f"{self.num_cut:,} near-ties where the list ends")
        if self.num_apart:
            parts.append(f"{self.num_apart:,} are further apart")
        if self.num_missing:
            parts.append(f"{self.num_missing:,} have no counterpart")
        if self.num_sensitive:
            parts.append(f"{self.num_sensitive:,} differ in the model itself where its input changes by a millionth")
        return ", ".join(parts)


@torch.no_grad()
def detect_on_inputs(
    detector: Detector, images: Float[Tensor, "b 3 h w"], sizes: Int[Tensor, "b 4"]
) -> list[DetectionRows]:
    """Detect as ``Detector.predict_batch`` does, from the network input on.

    Args:
        detector: in float32.
        images: normalized, of one input size and not padded.
        sizes: ``ImageSize`` of each.
    """
    input_format, padding_mask = detector.input_format, None
    input_size = images.shape[-2], images.shape[-1]
    if (padded_size := input_format.padded_size(*input_size)) != input_size:
        images, padding_mask = pad_inputs(list(images), *padded_size, input_format)
    with evaluation_mode(detector):
        output = detector(images, padding_mask)
        decoded = detector.decode(output)
        detections = detector.postprocess(output, [ImageSize(*row) for row in sizes.tolist()])
    rows = []
    for index, one in enumerate(detections):
        masks = None if decoded.masks is None else decoded.masks[index, decoded.valid[index]].numpy()
        is_full = len(one) == decoded.scores.shape[1]
        rows.append(DetectionRows(one.boxes.numpy(), one.scores.numpy(), one.labels.numpy(), masks, is_full))
    return rows


def count_sensitive(
    detector: Detector,
    images: Float[Tensor, "b 3 h w"],
    sizes: Int[Tensor, "b 4"],
    tolerance: Tolerance = FLOAT32_TOLERANCE,
) -> int:
    """Count the detections that differ where network inputs change by a millionth.

    Another computation in float32 cannot be asked for these: it rounds as much.

    Args:
        detector: in float32.
        images: as ``detect_on_inputs`` takes them.
        sizes: likewise.
        tolerance: beyond which they differ.
    """
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    expected, moved = (detect_on_inputs(detector, one, sizes) for one in (images, images * (1 + _NOISE * noise)))
    return compare_images(expected, moved, tolerance).num_differing


def read_outputs(outputs: Mapping[str, npt.NDArray[Any]]) -> list[DetectionRows]:
    """Read the detections of each image from the outputs of a file.

    Raises:
        ValueError: rows beyond the valid ones are not 0, or the best do not come first.
    """
    rows = []
    for index, count in enumerate(outputs["count"].tolist()):
        columns = [outputs[name][index] for name in ("boxes", "scores", "labels")]
        if any(column[count:].any() for column in columns):
            raise ValueError(f"rows beyond the {count} detections of image {index} are not 0")
        boxes, scores, labels = (column[:count] for column in columns)
        if (np.diff(scores) > 0).any():
            raise ValueError(f"detections of image {index} are not sorted by score")
        masks = outputs["masks"][index, :count] if "masks" in outputs else None
        rows.append(DetectionRows(boxes, scores, labels, masks, count == len(columns[1])))
    return rows


def compare_images(
    expected: Sequence[DetectionRows], actual: Sequence[DetectionRows], tolerance: Tolerance = FLOAT32_TOLERANCE
) -> DetectionAgreement:
    """Compare the detections of several images.

    Raises:
        ValueError: they are not as many images.
    """
    if len(expected) != len(actual):
        raise ValueError(f"{len(expected)} images went in, and detections of {len(actual)} came out")
    return sum_agreements(compare_detections(*pair, tolerance) for pair in zip(expected, actual, strict=True))


def sum_agreements(agreements: Iterable[DetectionAgreement]) -> DetectionAgreement:
    """Put comparisons together."""
    total = DetectionAgreement()
    for one in agreements:
        total += one
    return total


def compare_detections(expected: DetectionRows, actual: DetectionRows, tolerance: Tolerance) -> DetectionAgreement:
    """Match the detections of one image one to one, each with the nearest of its class, and compare them."""
    is_free = np.ones(len(actual.scores), dtype=bool)
    matched, num_apart, missing = DetectionAgreement(total=len(expected.scores)), 0, []
    for row in range(len(expected.scores)):
        distances, gaps = _measure(expected, row, actual)
        alike = is_free & (actual.labels == expected.labels[row]) & (gaps <= _ALIKE) & (distances <= _ALIKE)
        if not alike.any():
            missing.append(float(expected.scores[row]))
            continue
        nearest = int(np.where(alike, np.maximum(distances / tolerance.box, gaps / tolerance.score), np.inf).argmin())
        is_free[nearest] = False
        mask = _mask_difference(expected, row, actual, nearest)
        distance, gap = float(distances[nearest]), float(gaps[nearest])
        if distance > tolerance.box or gap > tolerance.score or mask > tolerance.mask:
            num_apart += 1
        else:
            matched += DetectionAgreement(
                num_matched=1, box_difference=distance, score_difference=gap, mask_difference=mask
            )
    missing += actual.scores[is_free].tolist()
    ends = [float(rows.scores[-1]) for rows in (expected, actual) if rows.is_full and len(rows.scores)]
    num_cut = sum(any(abs(score - end) <= tolerance.score for end in ends) for score in missing)
    return matched + DetectionAgreement(num_apart=num_apart, num_missing=len(missing) - num_cut, num_cut=num_cut)


def _measure(
    expected: DetectionRows, row: int, actual: DetectionRows
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Measure how far every detection is from one: its corners in longest sides of the box, and its score."""
    box = expected.boxes[row]
    side = max(1.0, float((box[2:] - box[:2]).max()))
    return np.abs(actual.boxes - box).max(1) / side, np.abs(actual.scores - expected.scores[row])


def _mask_difference(expected: DetectionRows, row: int, actual: DetectionRows, other: int) -> float:
    if expected.masks is None or actual.masks is None:
        return 0.0 if expected.masks is actual.masks else float("inf")
    return float(np.abs(expected.masks[row] - actual.masks[other]).mean())
