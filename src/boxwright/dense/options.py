"""Options that dense heads have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from jaxtyping import Float
from torch import Tensor

from boxwright.layers.option_checks import check_choice, check_counts, check_fractions
from boxwright.ops.anchors import AnchorGrid, octave_anchors

MAX_SIZES = 100


@dataclass(frozen=True, kw_only=True)
class AnchorOptions:
    """Anchors of every cell: some sizes within an octave, each in some shapes of one area.

    Args:
        scale: side of a level's smallest square anchor, in strides.
        octave_steps: sizes of anchors before the side has doubled.
        aspect_ratios: heights of the anchors, in widths.
        whole_pixels: sides and corners are whole pixels (torchvision).
        anchor_grid: pixels between anchors: the stride of the ``level``, or those of the ``padded_input`` divided by
            the level's cells, rounded down (torchvision).
    """

    scale: float = 4.0
    octave_steps: int = 3
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    whole_pixels: bool = True
    anchor_grid: AnchorGrid = "level"

    def __post_init__(self) -> None:
        check_choice("anchor_grid", self.anchor_grid, get_args(AnchorGrid))
        if not 1 <= self.octave_steps <= MAX_SIZES or not 1 <= len(self.aspect_ratios) <= MAX_SIZES:
            raise ValueError(f"octave_steps and the number of aspect_ratios are from 1 to {MAX_SIZES}")
        if not all(0 < value < math.inf for value in (self.scale, *self.aspect_ratios)):
            raise ValueError(f"scale and aspect_ratios are greater than 0, not {self.scale} and {self.aspect_ratios}")

    def make_anchors(self, stride: int) -> Float[Tensor, "a 4"]:
        """Make the anchors of a cell, corner boxes around the origin in pixels; see ``octave_anchors``.

        Args:
            stride: of the level, in pixels.
        """
        return octave_anchors(
            self.scale * stride, self.octave_steps, self.aspect_ratios, whole_pixels=self.whole_pixels
        )


@dataclass(frozen=True, kw_only=True)
class FocalOptions:
    """Constants of the focal loss.

    Args:
        alpha: weight of positives, in [0, 1].
        gamma: exponent that lowers the weight of easy predictions, at least 0.
    """

    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_fractions({"alpha": self.alpha})
        if self.gamma < 0:
            raise ValueError(f"gamma is at least 0, not {self.gamma}")


@dataclass(frozen=True, kw_only=True)
class DenseDetectionOptions:
    """Limits of detections.

    Args:
        score_threshold: detections have a higher score, in [0, 1].
        soft_nms: detections that overlap a better one of their class get a lower score instead of being left out.
        nms_threshold: IoU with a better detection of its class above which one is left out, in [0, 1].
        pre_nms_top_k: most (anchor, class) pairs before that, of each level or of all levels together.
        max_detections: most detections of an image.
        best_class: each anchor is a candidate with its best class alone, rather than with every class (google/automl).
        keep_empty: keep boxes that have no area inside their image (torchvision, effdet); mmdetection drops them.
    """

    score_threshold: float = 0.05
    soft_nms: bool = False
    nms_threshold: float = 0.5
    pre_nms_top_k: int = 1000
    max_detections: int = 300
    best_class: bool = False
    keep_empty: bool = True

    def __post_init__(self) -> None:
        check_fractions({"score_threshold": self.score_threshold, "nms_threshold": self.nms_threshold})
        check_counts({"pre_nms_top_k": self.pre_nms_top_k, "max_detections": self.max_detections})
