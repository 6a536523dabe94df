"""Check of what the network will see: sizes of objects in its input, limits on detections, anchors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.train_options import training_sizes
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.loading.sampler import BatchSampler, SampleKey
from boxwright.data.masks import check_masks
from boxwright.data.records import DetectionData, object_columns
from boxwright.data.size_survey import DrawnObjects, draw_objects, measure_scales, measure_sides, thin_out
from boxwright.detector import Detector
from boxwright.evaluation.anchor_fit import AnchorSurvey, survey_anchors
from boxwright.evaluation.limits import coco_limit, head_limits
from boxwright.training.schedule import Schedule
from boxwright.workflows.check_report import SplitFinding
from boxwright.workflows.class_views import (
    AnchorCounts,
    ClassView,
    brief_lines,
    class_findings,
    count_of,
    view_all,
    view_classes,
)
from boxwright.workflows.observer import Observer

HIDDEN_OBJECTS = FindingKind("objects_beyond_limits", "warning", "limits below the number of objects in an image")
MASKS_STOP_TRAINING = FindingKind(
    "masks_stop_training",
    "error",
    "splits have masks, or objects without one, at which training of this recipe stops",
    "correct them, or take a recipe of boxes alone",
)
UPSAMPLED_IMAGES = FindingKind(
    "upsampled_images",
    "note",
    "splits with many images that become more than twice as large",
    "a smaller --image-size is faster and shows as much",
)
STRETCHED_IMAGES = FindingKind(
    "stretched_images",
    "note",
    "splits with many images whose sides change by factors that differ more than twice",
    "--input.resize shortest_side keeps it",
)

DRAWN_IMAGES = 5000
"""Images whose augmentation is drawn, and whose objects are compared with anchors, at most."""

CHANGED_FRACTION = 0.2
CHANGED_FACTOR = 2.0


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkCheck:
    """Objects and images as the network will see them.

    Args:
        image_size: of the recipe.
        resize: of the recipe.
        split: the split that sizes, augmentation and anchors are about.
        classes: one by one, in the order of labels; empty for a classifier.
        all_classes: the same for all of them together.
        sampled_images: images whose training samples were drawn.
        upsampled: fraction of images that become more than twice as large.
        stretched: fraction of images whose shape changes by more than a factor of two.
        anchors: limits of the matching with anchors and counts by class; None for heads without.
        split_findings: what stops training or costs accuracy.
    """

    image_size: int
    resize: str
    split: str
    classes: tuple[ClassView, ...]
    all_classes: ClassView | None
    sampled_images: int
    upsampled: float
    stretched: float
    anchors: AnchorSurvey | None
    split_findings: tuple[SplitFinding, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings without their splits."""
        return tuple(one.finding for one in self.split_findings)

    def lines(self) -> list[str]:
        """Describe for the command line what the findings do not say."""
        lines = [f"network input: {self.resize}, {self.image_size} pixels"]
        if self.all_classes is not None:
            if not self.all_classes.objects:
                return [*lines, f"{self.split}: no objects to measure"]
            lines += _describe_sizes(self.all_classes, self.split, self.sampled_images)
            if self.anchors is not None:
                lines.append(_describe_anchors(self.all_classes.anchors, self.anchors))
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain values."""
        anchors = self.anchors
        return {
            "image_size": self.image_size,
            "resize": self.resize,
            "split": self.split,
            "sampled_images": self.sampled_images,
            "upsampled_fraction": self.upsampled,
            "stretched_fraction": self.stretched,
            "classes": [one.to_json() for one in self.classes],
            "all_classes": None if self.all_classes is None else self.all_classes.to_json(),
            "anchors": None
            if anchors is None
            else {name: float(getattr(anchors, name)) for name in ("positive_iou", "negative_iou", "largest_side")},
        }

    def brief(self) -> list[str]:
        """Say what costs accuracy in at most three lines, for the start of training; limits are said there anyhow."""
        return brief_lines(self.classes, self.all_classes)


def check_network(
    data: DetectionData | Mapping[str, DetectionData],
    recipe: Recipe | Detector,
    *,
    observer: Observer | None = None,
) -> NetworkCheck:
    """Measure objects and images as a recipe's network will see them, in evaluation and in training.

    Sizes, augmentation and anchors are about the split ``train``, or the first one; limits about every split. The
    augmentation of the first epoch is drawn as training will draw it, without reading any image, of 5,000 images at
    most.

    Args:
        data: splits by name, or the one that is trained on.
        recipe: a resolved recipe; or a detector that was built from one, which spares building it.
        observer: told what begins.

    Raises:
        ValueError: there is no split, or the detector has no recipe.
    """
    splits = {"train": data} if isinstance(data, DetectionData) else dict(data)
    if not splits:
        raise ValueError("there is no split to check")
    name = "train" if "train" in splits else next(iter(splits))
    training = splits[name]
    (observer or Observer()).announce(f"measuring what the network sees of {name}")
    resolved = recipe_of(recipe)
    detector = recipe if isinstance(recipe, Detector) else build_resolved(recipe, categories=training.categories)
    upsampled, stretched, findings = _measure_images(training, name, detector)
    classes: tuple[ClassView, ...] = ()
    total, anchors, drawn_images = None, None, 0
    of_others: list[SplitFinding] = []
    if detector.task == "detection":
        sides = measure_sides(training, detector.input_format)
        drawn = _draw_epoch(training, resolved, detector)
        few = thin_out(training, DRAWN_IMAGES)
        device = next(detector.parameters()).device
        anchors = survey_anchors(few, detector.head, detector.input_format, device)
        names = [category.name for category in training.categories]
        classes = view_classes(names, sides, drawn, anchors, detector.input_format.image_size)
        total = view_all(classes, sides, detector.input_format.image_size)
        drawn_images = drawn.images
        findings = [*class_findings(classes), *findings]
        of_others = [*_find_mask_stops(splits, detector), *_find_hidden_objects(splits, detector)]
    return NetworkCheck(
        image_size=detector.input_format.image_size,
        resize=detector.input_format.resize,
        split=name,
        classes=classes,
        all_classes=total,
        sampled_images=drawn_images,
        upsampled=upsampled,
        stretched=stretched,
        anchors=anchors,
        split_findings=(*of_others, *(SplitFinding(name, one) for one in findings)),
    )


def recipe_of(recipe: Recipe | Detector) -> Recipe:
    """Return a recipe, or that of a detector.

    Raises:
        ValueError: the detector has none.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe.recipe, Recipe):
        raise ValueError("this detector was put together by hand: give the recipe that it is to be trained with")
    return recipe.recipe


def _draw_epoch(data: DetectionData, recipe: Recipe, detector: Detector) -> DrawnObjects:
    """Draw the samples of the first epoch, or the first of them."""
    options = recipe.train
    if options.batches.skip_empty_images:
        data = data.select(np.unique(object_columns(data.records).image_index))
    count = data.epoch_images
    keys: list[SampleKey] = []
    if count:
        steps = options.steps or -(-count * options.epochs // options.batch_size)
        schedule = Schedule(steps, options, count)
        sampler = BatchSampler(
            seed=options.runtime.seed,
            num_samples=len(data.records),
            pseudo=data.pseudo,
            batch_size=options.batch_size,
            num_steps=-(-min(count, DRAWN_IMAGES) // options.batch_size),
            image_sizes=training_sizes(detector.input_format.image_size, options.batches.multi_scale),
            stage_of=schedule.stage,
            no_aug_size=detector.input_format.image_size,
        )
        keys = [key for batch in sampler for key in batch][: min(count, DRAWN_IMAGES)]
    return draw_objects(data, keys, recipe.augment, detector.input_format, options.runtime.seed)


def _find_mask_stops(splits: Mapping[str, DetectionData], detector: Detector) -> list[SplitFinding]:
    """Check masks as training does: those of its split, and of val with the crowd regions, which are measured with."""
    findings = []
    for name in ("train", "val") if detector.needs_masks else ():
        try:
            if name in splits:
                check_masks(splits[name], crowds=name == "val")
        except ValueError as error:
            detail = str(error).removeprefix(f"{splits[name].source}: ")
            findings.append(SplitFinding(name, Finding(MASKS_STOP_TRAINING, name, detail)))
    return findings


def _find_hidden_objects(splits: Mapping[str, DetectionData], detector: Detector) -> list[SplitFinding]:
    """Make a finding of each limit, in each split, that hides objects."""
    findings = []
    for name, data in splits.items():
        for option, line in head_limits(data, detector.head).items():
            text = f"{line.removeprefix(f'{data.source}: ')}: raise --head.{option}"
            findings.append(SplitFinding(name, Finding(HIDDEN_OBJECTS, f"head.{option}", text)))
        if limit := coco_limit(data):
            text = f"{limit} `boxwright eval --max-detections N` counts more."
            findings.append(SplitFinding(name, Finding(HIDDEN_OBJECTS, "COCO's metrics", text)))
    return findings


def _measure_images(data: DetectionData, split: str, detector: Detector) -> tuple[float, float, list[Finding]]:
    """Return the fractions of images that become much larger and that change their shape, and findings on them."""
    scales = measure_scales(data, detector.input_format)
    upsampled = _fraction(np.sqrt(scales.prod(1)) > CHANGED_FACTOR)
    stretched = _fraction(scales.max(1, initial=0) > CHANGED_FACTOR * scales.min(1, initial=np.inf))
    changes = ((UPSAMPLED_IMAGES, upsampled), (STRETCHED_IMAGES, stretched))
    findings = [Finding(kind, split, f"{value:.0%}") for kind, value in changes if value > CHANGED_FRACTION]
    return upsampled, stretched, findings


def _describe_sizes(total: ClassView, split: str, sampled: int) -> list[str]:
    drawn = total.drawn
    lines = [
        f"{split}: {total.objects:,} objects, shorter side {total.median_side:.0f} pixels in the median; "
        f"{count_of(total.small, total.objects)} below 8 pixels, {count_of(total.tiny, total.objects)} below 1",
        f"in training, {sampled:,} images drawn: {count_of(drawn.cropped, drawn.total)} objects cropped out, "
        f"{count_of(drawn.dropped, drawn.total)} dropped as smaller than a pixel, "
        f"{count_of(drawn.small, drawn.total)} left but below 8 pixels",
    ]
    if total.mending_size is not None:
        lines.append(f"at most 5 % of all objects are below 8 pixels from --image-size {total.mending_size} on")
    return lines


def _describe_anchors(counts: AnchorCounts, anchors: AnchorSurvey) -> str:
    return (
        f"anchors: the best has an IoU below {anchors.positive_iou:g} with "
        f"{count_of(counts.below_positive, counts.total)} objects, below {anchors.negative_iou:g} with "
        f"{count_of(counts.below_negative, counts.total)}; {count_of(counts.larger, counts.total)} are larger than "
        f"any anchor ({anchors.largest_side:.0f} pixels square)"
    )


def _fraction(mask: np.ndarray) -> float:
    return float(mask.mean()) if mask.size else 0.0
