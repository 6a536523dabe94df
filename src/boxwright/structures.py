"""Nouns that everything shares: levels, targets, detections and batches.

Those that exported files know too come from ``boxwright_runtime.structures``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright_runtime.structures import RLE as RLE
from boxwright_runtime.structures import Category as Category
from boxwright_runtime.structures import ImageSize as ImageSize
from boxwright_runtime.structures import MaskRegion as MaskRegion
from boxwright_runtime.structures import Task as Task


@dataclass(frozen=True)
class Level:
    """A feature map before any image is seen.

    Args:
        channels: width of the map.
        stride: pixels of the network input per cell, in both directions.
        auxiliary: offered for supervision only; heads skip it unless they ask for it.
    """

    channels: int
    stride: int
    auxiliary: bool = False


Spec = dict[str, Level]
"""Levels by name, ordered fine to coarse: ``{"c3": Level(512, 8), ...}``."""

Features = dict[str, Float[Tensor, "b _c _h _w"]]
"""The maps of a ``Spec``: the same keys in the same order."""


def main_levels(spec: Spec) -> Spec:
    """Select the levels that a neck works on: all but the auxiliary ones, which pass it by."""
    return {name: level for name, level in spec.items() if not level.auxiliary}


def levels_for_head(specs: Sequence[Spec]) -> Spec:
    """Select the levels for the head: the last ``out_spec`` of backbone and necks, and auxiliary ones before it."""
    auxiliary = {name: level for spec in specs[:-1] for name, level in spec.items() if level.auxiliary}
    return {**auxiliary, **specs[-1]}


def coarser_name(name: str) -> str:
    """Name the level that a part adds beyond ``name``: c6 after c5."""
    number = re.search(r"\d+$", name)
    return f"{name[: number.start()]}{int(number[0]) + 1}" if number else f"{name}1"


def head_levels(spec: Spec) -> list[str]:
    """List the levels that a head predicts from: all but the auxiliary ones.

    Raises:
        ValueError: there is none.
    """
    levels = list(main_levels(spec))
    if not levels:
        raise ValueError("the head needs at least one level")
    return levels


class Targets(NamedTuple):
    """The objects of one image, as a head is trained on them.

    ``labels`` are 0..C-1. ``boxes`` are corners (x1, y1, x2, y2) in pixels of the network input.
    ``size`` is the (height, width) of the image inside its padding, in pixels of the network input.
    ``masks`` are in pixels of the network input, or None where the task has none.
    ``seed`` is that of the random choices made for the image: noise of its objects, regions sampled from it; torch's
    global generator makes them where None. ``most_objects`` counts the objects of the fullest image of the optimizer
    step, of which denoising makes as many queries in every image; that of the batch where None. ``teacher`` is the map
    of a frozen model of the network input, for distillation.
    """

    labels: Int[Tensor, " n"]
    boxes: Float[Tensor, "n 4"]
    size: tuple[int, int]
    masks: Bool[Tensor, "n h w"] | None = None
    seed: int | None = None
    most_objects: int | None = None
    teacher: Float[Tensor, "c y x"] | None = None


class TeacherMaps(NamedTuple):
    """The maps of a frozen model that a head learns from, of network inputs.

    ``model`` is its name in timm, and ``weights`` the source of them. There is a cell of ``channels`` for each
    ``stride`` pixels.
    """

    model: str
    weights: str | None
    channels: int
    stride: int


class Candidates(NamedTuple):
    """Boxes that a head is trained on, and the object of each within its image.

    ``boxes`` are corner boxes in pixels of the network input. ``objects`` are -1 for background and -2 for boxes that
    are left out.
    """

    boxes: Float[Tensor, "b n 4"]
    objects: Int[Tensor, "b n"]


class Decoded(NamedTuple):
    """Detections of a batch in the one form that every head has, of fixed shape, best first.

    ``boxes`` are corners (x1, y1, x2, y2) in pixels of the network input, and may reach beyond the image; ``scores``
    are in [0, 1], or not a number where the model has diverged; ``labels`` are 0..C-1; entries that are not ``valid``
    fill up. ``masks`` are probabilities of the cells that the regions ``mask_boxes`` consist of, corners likewise;
    None where the head has none. ``sides_std`` are standard deviations of the sides, in the order of the corners and in
    pixels; ``Detector.postprocess`` adds them where they are asked for, and else they are None.
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]
    masks: Float[Tensor, "b n s t"] | None = None
    mask_boxes: Float[Tensor, "b n 4"] | None = None
    sides_std: Float[Tensor, "b n 4"] | None = None


class ObjectLimit(NamedTuple):
    """An option that limits how many objects of an image are detected.

    ``option`` is its name in the head's own options, with dots, as in ``rpn.post_nms_top_k``; of an option with one
    number for training and one for prediction, ``limit`` is that for prediction. ``per_level`` limits hold for each
    level by itself.
    """

    option: str
    limit: int
    per_level: bool = False


class AnchorFits(NamedTuple):
    """IoU of each object with the anchor that overlaps it most, and the limits of a head's matching.

    From ``positive_iou`` on every such anchor is trained on the object; below ``negative_iou`` none is, but for the
    single best one. ``largest_side`` is the square root of the largest anchor's area, in pixels of the network input.
    """

    best: Float[Tensor, " n"]
    positive_iou: float
    negative_iou: float
    largest_side: float


class ResidualBlock(NamedTuple):
    """The layers of a residual block, shortcut left out, as prefixes of their names in the backbone's state."""

    layers: tuple[str, ...]


class SelectionQuality(NamedTuple):
    """Selected queries: all, those with a high score, and those with a high score on a box that fits."""

    selected: int
    confident: int
    confident_and_fitting: int

    def __add__(self, other: object) -> SelectionQuality:
        """Add up the counts of both."""
        if not isinstance(other, SelectionQuality):
            return NotImplemented
        return SelectionQuality(*(a + b for a, b in zip(self, other, strict=True)))

    def ratios(self) -> tuple[float, float]:
        """Prop_cls and Prop_both of RT-DETR's Table 4, in [0, 1]."""
        count = max(self.selected, 1)
        return self.confident / count, self.confident_and_fitting / count


class ClassRows(NamedTuple):
    """Layout of the rows of a tensor that has some for each class.

    There are ``blocks`` blocks, as one for each anchor; each has ``rows`` rows for every class, in the order of labels,
    and then as many for each of ``others`` that are no class, as background. With ``softmax``, the rows are logits that
    compete, and the last one is background.
    """

    blocks: int = 1
    rows: int = 1
    others: int = 0
    softmax: bool = False


class Batch(NamedTuple):
    """Images on their way through a detector.

    ``images`` are RGB, ready for the network; ``padding_mask`` is True on padding and None where there is none.
    ``targets``, ``sizes`` and ``image_ids`` have one entry per image.
    """

    images: Float[Tensor, "b 3 h w"]
    padding_mask: Bool[Tensor, "b h w"] | None
    targets: list[Targets]
    sizes: list[ImageSize]
    image_ids: list[int]


class LossTotals(NamedTuple):
    """Counts of one optimizer step, so that its losses do not depend on how its images are spread.

    ``objects`` and ``images`` count the whole step, over processes and accumulated batches; so do ``matches``, the
    predictions that the head matches with objects, which only some heads count, and ``match_weights``,
    the sum of their weights, likewise; ``auxiliary`` are matches and weights of each auxiliary head. Gradients
    are averaged over ``processes``, so that each process divides by its own fraction of a count, and a count is at
    least 1. The authors' codes bound the fraction instead, with which a step with fewer objects than processes has a
    smaller gradient on several processes than on one.
    """

    objects: int
    images: int
    processes: int = 1
    matches: int | None = None
    match_weights: float | None = None
    auxiliary: tuple[float, ...] = ()

    @classmethod
    def of(cls, targets: Sequence[Targets]) -> LossTotals:
        """Count a step that consists of this batch alone."""
        return cls(sum(len(t.labels) for t in targets), len(targets))

    def of_groups(self, num_groups: int) -> LossTotals:
        """Count objects and images once for each of several groups of queries, of which ``matches`` counts all."""
        return self._replace(objects=self.objects * num_groups, images=self.images * num_groups)

    def of_auxiliary(self, index: int) -> LossTotals:
        """Return the counts of an auxiliary head, by its index."""
        if not self.auxiliary:
            raise ValueError("auxiliary heads need LossTotals with auxiliary; Detector.totals counts that")
        matches, weights = self.auxiliary[2 * index : 2 * index + 2]
        return self._replace(matches=round(matches), match_weights=weights, auxiliary=())

    @property
    def objects_per_process(self) -> float:
        """Objects per process; of the step at least 1."""
        return max(self.objects, 1) / self.processes

    @property
    def images_per_process(self) -> float:
        """Images per process."""
        return self.images / self.processes

    @property
    def matches_per_process(self) -> float:
        """Matches per process; of the step at least 1.

        Raises:
            ValueError: they were not counted.
        """
        return max(self._counted_matches(), 1) / self.processes

    @property
    def match_weights_per_process(self) -> float:
        """Sum of the weights of matches per process; of the step at least 1.

        Raises:
            ValueError: they were not counted.
        """
        if self.match_weights is None:
            raise ValueError("the losses of this head need LossTotals with match_weights; Detector.totals adds them up")
        return max(self.match_weights, 1.0) / self.processes

    @property
    def matches_and_one_per_process(self) -> float:
        """One more than the matches of the step, per process: the divisor of EfficientDet.

        Raises:
            ValueError: they were not counted.
        """
        return (self._counted_matches() + 1) / self.processes

    def _counted_matches(self) -> int:
        if self.matches is None:
            raise ValueError("the losses of this head need LossTotals with matches; Detector.totals counts them")
        return self.matches
