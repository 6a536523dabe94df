"""Check of what the network will see: sizes of objects in its input, limits on detections, anchors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.train_options import training_sizes
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.loading.sampler import BatchSampler, SampleKey
from boxwright.data.records import DetectionData
from boxwright.data.size_survey import DrawnObjects, draw_objects, measure_scales, measure_sides, thin_out
from boxwright.detector import Detector
from boxwright.evaluation.anchor_fit import AnchorSurvey, survey_anchors
from boxwright.evaluation.limits import coco_limit, head_limits
from boxwright.training.schedule import Schedule
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
LISTED_CLASSES = 10


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
        limits: a line for each limit that hides objects.
        anchors: limits of the matching with anchors and counts by class; None for heads without.
        findings: what costs accuracy.
    """

    image_size: int
    resize: str
    split: str
    classes: tuple[ClassView, ...]
    all_classes: ClassView | None
    sampled_images: int
    upsampled: float
    stretched: float
    limits: tuple[str, ...]
    anchors: AnchorSurvey | None
    findings: tuple[Finding, ...]

    def lines(self) -> list[str]:
        """Describe all of it for the command line."""
        lines = [f"network input: {self.resize}, {self.image_size} pixels"]
        if self.all_classes is not None:
            lines += _describe_sizes(self.all_classes, self.split, self.sampled_images)
            if self.anchors is not None:
                lines.append(_describe_anchors(self.all_classes.anchors, self.anchors))
            lines += self._class_lines()
        lines += self.limits
        for fraction, change in (
            (self.upsampled, "become more than twice as large"),
            (self.stretched, "change shape: one side grows more than twice as much as the other"),
        ):
            if fraction > CHANGED_FRACTION:
                lines.append(f"{fraction:.0%} of the images {change}")
        return lines

    def brief(self) -> list[str]:
        """Say what costs accuracy in at most three lines, for the start of training; limits are said there anyhow."""
        return brief_lines(self.classes, self.all_classes)

    def _class_lines(self) -> list[str]:
        listed = sorted((one for one in self.classes if one.troubles()), key=lambda one: -max(one.fractions.values()))
        lines = [f"  {one.name}: {'; '.join(one.troubles().values())}" for one in listed[:LISTED_CLASSES]]
        if len(listed) > LISTED_CLASSES:
            lines.append(f"  and {len(listed) - LISTED_CLASSES} classes more")
        return lines


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
    total, limits, anchors, drawn_images = None, {}, None, 0
    if detector.task == "detection":
        sides = measure_sides(training, detector.input_format)
        drawn = _draw_epoch(training, resolved, detector)
        few = thin_out(training, DRAWN_IMAGES)
        device = next(detector.parameters()).device
        anchors = survey_anchors(few, detector.head, detector.input_format, device)
        names = [category.name for category in training.categories]
        classes = view_classes(names, sides, drawn, anchors, detector.input_format.image_size)
        total = view_all(classes, sides, detector.input_format.image_size)
        limits, drawn_images = _limits(splits, detector), drawn.images
        findings = [
            *class_findings(classes),
            *(Finding(HIDDEN_OBJECTS, *limit) for limit in limits.items()),
            *findings,
        ]
    return NetworkCheck(
        image_size=detector.input_format.image_size,
        resize=detector.input_format.resize,
        split=name,
        classes=classes,
        all_classes=total,
        sampled_images=drawn_images,
        upsampled=upsampled,
        stretched=stretched,
        limits=tuple(f"{name}: {line}" for name, line in limits.items()),
        anchors=anchors,
        findings=tuple(findings),
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
        data = replace(data, records=tuple(record for record in data.records if len(record.labels)))
    count = len(data.records)
    keys: list[SampleKey] = []
    if count:
        steps = options.steps or -(-count * options.epochs // options.batch_size)
        schedule = Schedule(steps, options, count)
        sampler = BatchSampler(
            seed=options.runtime.seed,
            num_samples=count,
            batch_size=options.batch_size,
            num_steps=-(-min(count, DRAWN_IMAGES) // options.batch_size),
            image_sizes=training_sizes(detector.input_format.image_size, options.batches.multi_scale),
            no_aug_from_step=schedule.no_aug_from,
            no_aug_size=detector.input_format.image_size,
        )
        keys = [key for batch in sampler for key in batch][: min(count, DRAWN_IMAGES)]
    return draw_objects(data, keys, recipe.augment, detector.input_format, options.runtime.seed)


def _limits(splits: Mapping[str, DetectionData], detector: Detector) -> dict[str, str]:
    """Return a line for each limit, by split and option."""
    lines = {}
    for name, data in splits.items():
        for option, line in head_limits(data, detector.head).items():
            lines[f"{name}, head.{option}"] = f"{line.removeprefix(f'{data.source}: ')}: raise --head.{option}"
        if limit := coco_limit(data):
            lines[f"{name}, COCO's metrics"] = f"{limit} `boxwright eval --max-detections N` counts more."
    return lines


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
