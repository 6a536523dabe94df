"""Check of learning: a few images overfitted through the whole path, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.contracts import FrozenStatistics
from boxwright.data.few_images import choose_images
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.masks import check_masks
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.evaluation.agreement import Agreement, measure_agreement
from boxwright.training.overfit import OverfitResult, overfit
from boxwright.workflows.check_network import recipe_of
from boxwright.workflows.check_report import SplitFinding
from boxwright.workflows.observer import Observer
from boxwright.workflows.validation import Validation

DOES_NOT_LEARN = FindingKind(
    "does_not_learn",
    "warning",
    "recipes do not learn a few images by heart",
    "look at these images with their boxes, and try a higher --train.lr",
)
LEARNED_BY_HEART = FindingKind(
    "learned_by_heart",
    "note",
    "recipes learn a few images by heart, and nothing from them about others",
    "with so few images that may be; if annotations may not belong to their images, look at some",
)
LEARNED_BOXES_ONLY = FindingKind(
    "learned_boxes_only",
    "note",
    "recipes learn from a few images where objects of others are, and nothing about their classes",
    "with so few images that may be; if classes may be wrong, look at some",
)

DIVERGES = FindingKind(
    "diverges",
    "warning",
    "recipes diverge on a few images",
    "try a lower --train.lr; if boxes may not belong to their images, look at some",
)

LearningVerdict = Literal["learns", "learns boxes only", "learns by heart only", "does not learn", "unclear"]

LEARNED_IMAGES = 8
LEARNING_SECONDS = 120.0
MAX_STEPS = 300

ENOUGH_AP50 = 0.5
ENOUGH_LOSS = 0.5
"""Fraction of the first loss that is left where something was learned."""

FEWEST_STEPS = 40
"""With fewer steps, nothing learned says nothing."""

UNSEEN_IMAGES = 64
FEWEST_UNSEEN = 8

STILL_FALLING = 0.9
"""The last loss is below this fraction of that at half time where more time would have helped."""

LEAST_AGREEMENT = 3.0
"""Least agreement with unseen images, in standard deviations, that is not chance: of 4000 random exchanges of images'
boxes, at most 0.6 % reached it, and 1.5 % of those of classes, with detections of five models on 8 to 32 images."""


@dataclass(frozen=True, kw_only=True)
class LearningCheck:
    """A few images learned by heart, and what that tells about others.

    Args:
        images: names of the images.
        objects: in them.
        classes: in them, and in the data set.
        metric: AP50, or top1 of a classifier.
        before: the metric on these images before training.
        after: the same after it.
        result: losses, steps and time.
        unseen: agreement with other images; None where there are too few.
        is_frozen: norms are frozen and were never trained, which makes learning hard.
        split: that the images are from.
    """

    images: tuple[str, ...]
    objects: int
    classes: tuple[int, int]
    metric: str
    before: float
    after: float
    result: OverfitResult
    unseen: Agreement | None
    is_frozen: bool
    split: str = "train"

    @property
    def verdict(self) -> LearningVerdict:
        """The answer to the question."""
        losses = self.result.losses
        if self.after >= ENOUGH_AP50 or self.result.remaining <= ENOUGH_LOSS:
            of_unseen = self._verdict_of_unseen()
            # A loss that is mostly of the background falls before any object is detected.
            return "unclear" if of_unseen == "learns by heart only" and self.after < ENOUGH_AP50 else of_unseen
        is_falling = losses[-1] < STILL_FALLING * losses[len(losses) // 2]
        if self.is_frozen or self.result.steps < FEWEST_STEPS or is_falling:
            return "unclear"
        return "does not learn"

    def _verdict_of_unseen(self) -> LearningVerdict:
        if self.unseen is None:
            return "learns"
        has_boxes, classes = self.metric == "AP50", self.unseen.classes
        if has_boxes and self.unseen.boxes < LEAST_AGREEMENT:
            return "learns by heart only"
        if classes is not None and classes < LEAST_AGREEMENT:
            return "learns boxes only" if has_boxes else "learns by heart only"
        return "learns"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The finding that nothing, or nothing of the images, was learned."""
        kinds = {
            "does not learn": DOES_NOT_LEARN,
            "learns by heart only": LEARNED_BY_HEART,
            "learns boxes only": LEARNED_BOXES_ONLY,
        }
        kind = kinds.get(self.verdict)
        return () if kind is None else (Finding(kind, self.split, self.lines()[-2]),)

    @property
    def split_findings(self) -> tuple[SplitFinding, ...]:
        """The same, with the split."""
        return tuple(SplitFinding(self.split, one) for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        unseen = None if self.unseen is None else self.unseen._asdict()
        return {**vars(self), "verdict": self.verdict, "result": asdict(self.result), "unseen": unseen}

    def lines(self) -> list[str]:
        """Describe all of it for the command line."""
        (few, all_classes), result = self.classes, self.result
        lines = [
            f"{len(self.images)} images with {self.objects} objects of {few} of {all_classes} classes, learned by "
            f"heart in {result.steps} steps ({result.seconds:.0f} s): {self.metric} {self.before:.2f} to "
            f"{self.after:.2f}, loss {result.losses[0]:.3g} to {result.losses[-1]:.3g} ({result.remaining:.0%})"
        ]
        if self.unseen is not None:
            images, boxes, classes = self.unseen
            scores = [f"boxes {boxes:+.1f}"] if self.metric == "AP50" else []
            scores += [] if classes is None else [f"classes {classes:+.1f}"]
            lines.append(
                f"{images} other images: agreement in standard deviations of that with exchanged ones, at least "
                f"{LEAST_AGREEMENT:g} where something holds for them: {', '.join(scores) or 'of one class'}"
            )
        return [*lines, f"verdict: {self._explain()}"]

    def _explain(self) -> str:
        if self.verdict == "learns":
            return "learns: training on all images is worth its time"
        if self.verdict == "learns by heart only":
            return (
                "learns these images by heart, and nothing yet that holds for others: with so few images that may be, "
                "and so it is where annotations do not belong to their images"
            )
        if self.verdict == "learns boxes only":
            return (
                "learns where objects are, and nothing yet about classes that holds for others: with so few images "
                "that may be, and so it is where classes are wrong"
            )
        if self.verdict == "does not learn":
            return "does not learn even these images: look at their boxes and classes, and try a higher --train.lr"
        reason = f"{self.result.steps} steps in {self.result.seconds:.0f} s were too few to tell"
        if self.is_frozen:
            reason = "norms are frozen but were never trained: begin with --weights or --backbone-weights"
        return f"unclear: {reason}"


def check_learning(
    data: DetectionData | Mapping[str, DetectionData],
    recipe: Recipe | Detector,
    *,
    limit_seconds: float = LEARNING_SECONDS,
    max_steps: int = MAX_STEPS,
    observer: Observer | None = None,
) -> LearningCheck:
    """Overfit eight images through the whole path: reading, preprocessing, loss, optimizer, decoding, metrics.

    Nothing is changed at random, and the rate is constant. Any boxes can be learned by heart, wrong ones as fast as
    right ones. So other images are looked at too: if something was learned that holds for them, detections fit their
    own objects better than those of each other, and only right boxes can teach that; of classes likewise.

    Args:
        data: splits by name, of which ``train`` or the first is meant; or that split.
        recipe: a resolved recipe; or a detector that was built from one, whose weights are begun with and not changed.
        limit_seconds: time for the steps; evaluations are not counted.
        max_steps: the most steps.
        observer: told what begins and how far it is.

    Raises:
        ValueError: no image has an object, an image cannot be read, or training has diverged.
    """
    observer = observer or Observer()
    splits = {"train": data} if isinstance(data, DetectionData) else data
    name = "train" if "train" in splits else next(iter(splits))
    training = splits[name]
    few, others = choose_images(training, LEARNED_IMAGES, UNSEEN_IMAGES)
    if not few.records:
        raise ValueError(f"{training.source}: no image has an object, so that nothing can be learned")
    resolved, detector = recipe_of(recipe), _fresh(recipe, few)
    is_frozen = any(isinstance(one, FrozenStatistics) and one.is_fresh() for one in detector.modules())
    if detector.needs_masks:
        check_masks(few)
    metric, validation = "AP50" if detector.task == "detection" else "top1", Validation(few)
    before = float(validation(detector)[metric])
    device = next(detector.parameters()).device
    with observer.track("learning a few images by heart") as progress:
        result = overfit(
            detector, few, resolved, device, max_steps=max_steps, max_seconds=limit_seconds, progress=progress
        )
    after = float(validation(detector)[metric])
    singles = [record.labels[~record.crowd] for record in few.records]
    return LearningCheck(
        images=tuple(record.path.name for record in few.records),
        objects=sum(map(len, singles)),
        classes=(len({int(label) for labels in singles for label in labels}), len(few.categories)),
        metric=metric,
        before=before,
        after=after,
        result=result,
        unseen=_measure_unseen(detector, others),
        is_frozen=is_frozen,
        split=name,
    )


def _fresh(recipe: Recipe | Detector, data: DetectionData) -> Detector:
    """Return a detector to be trained: with the same weights each time."""
    if isinstance(recipe, Detector):
        return deepcopy(recipe)
    torch.manual_seed(recipe.train.runtime.seed)
    detector = build_resolved(recipe, categories=data.categories)
    device = choose_device(recipe.train.runtime.device)
    detector.freeze(recipe.train.freeze)
    detector.to(device)
    if device.type == "cpu":
        detector.to(memory_format=torch.channels_last)
    return detector


def _measure_unseen(detector: Detector, others: DetectionData) -> Agreement | None:
    if len(others.records) < FEWEST_UNSEEN:
        return None
    return measure_agreement(others, Validation(others).detect(detector))
