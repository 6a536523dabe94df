"""Label errors of a data set: annotations that models contradict which have not seen their images."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.folds import deal_folds, select_records
from boxwright.data.records import DetectionData, max_objects
from boxwright.detections import Detections
from boxwright.evaluation.coco_metrics import evaluate_detections
from boxwright.evaluation.label_errors import ErrorKind, Suspicion, rank_label_errors
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright.weights.model import build_model, read_model
from boxwright.workflows.fold_training import FoldTraining, has_seen, predict_images, prepare_training, train_on
from boxwright.workflows.observer import Observer
from boxwright.workflows.passports import describe_data
from boxwright.workflows.reading import Data, read_split

_ADVICE = "look at them; models that had not seen the image contradict"

OVERLOOKED_OBJECT = FindingKind("overlooked_object", "warning", "objects are probably not annotated", _ADVICE)
WRONG_CLASS = FindingKind("wrong_class", "warning", "annotations are probably of another class", _ADVICE)
BADLY_PLACED_BOX = FindingKind("badly_placed_box", "warning", "boxes are probably badly placed", _ADVICE)
SPURIOUS_BOX = FindingKind("spurious_box", "warning", "boxes are probably around no object", _ADVICE)

FINDING_KINDS: dict[ErrorKind, FindingKind] = {
    "overlooked": OVERLOOKED_OBJECT,
    "wrong_class": WRONG_CLASS,
    "badly_placed": BADLY_PLACED_BOX,
    "spurious": SPURIOUS_BOX,
}
"""The kind of finding for each kind of error."""

PROBABLE = 0.5
"""Probability from which a suspicion is a finding."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelErrors:
    """A ranking of probable label errors.

    Args:
        data: the images.
        suspicions: all annotations and all predicted objects without one, the most probable errors first; see
            ``rank_label_errors``.
        folds: number of models that were trained; 0 where the model itself has predicted.
        ap50: AP at IoU 0.5 of the predictions against the annotations: the higher, the more the ranking is worth.
    """

    data: DetectionData
    suspicions: tuple[Suspicion, ...]
    folds: int
    ap50: float

    @property
    def num_annotations(self) -> int:
        """Number of annotations that were ranked, crowd regions left out."""
        return sum(one.annotation_id is not None for one in self.suspicions)

    def first(self, fraction: float) -> tuple[Suspicion, ...]:
        """Return the first suspicions, as many as a fraction of the annotations are."""
        return self.suspicions[: round(fraction * self.num_annotations)]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The suspicions whose probability is ``PROBABLE`` at least, in the order of the ranking."""
        names = {record.image_id: record.path.name for record in self.data.records}
        return tuple(
            Finding(FINDING_KINDS[one.kind], names[one.image_id], self._describe(one))
            for one in self.suspicions
            if one.probability >= PROBABLE
        )

    def lines(self, count: int = 10) -> list[str]:
        """Describe the ranking: what was compared, counts per kind, and its first entries.

        Args:
            count: entries that are named, at most.
        """
        models = f"{self.folds} models that had not seen the image" if self.folds else "the model"
        unmatched = len(self.suspicions) - self.num_annotations
        findings = self.findings
        counts = Counter(finding.kind for finding in findings)
        lines = [
            f"label errors: {self.num_annotations:,} annotations and {unmatched:,} predicted objects without one, "
            f"ranked by {models} (AP50 {self.ap50:.2f} against the annotations)",
            *(f"  {number:,} {kind.text}" for kind, number in counts.most_common()),
        ]
        if not findings:
            return [*lines, "  none is probable"]
        shown = findings[:count]
        lines.append(f"  the first {len(shown)} of {len(findings):,} to look at:")
        return lines + [f"    {finding.subject}: {finding.detail}" for finding in shown]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the whole ranking as plain values, with names of files and classes."""
        names = {record.image_id: record.path.name for record in self.data.records}
        classes = [category.name for category in self.data.categories]
        return [
            {
                **one._asdict(),
                "probability": one.probability,
                "image": names[one.image_id],
                "label": classes[one.label],
                "predicted_label": None if one.predicted_label is None else classes[one.predicted_label],
            }
            for one in self.suspicions
        ]

    def _describe(self, one: Suspicion) -> str:
        own = self.data.categories[one.label].name
        seen = None if one.predicted_label is None else self.data.categories[one.predicted_label].name
        if one.annotation_id is None:
            return f"{own} without annotation at {_corners(one.box)}, score {one.confidence:.2f}"
        subject = f"annotation {one.annotation_id}, {own} at {_corners(one.box)}"
        if one.kind == "wrong_class":
            return f"{subject}: looks like {seen}, score {one.confidence:.2f}"
        if one.kind == "badly_placed" and one.predicted_box is not None:
            return f"{subject}: the object is at {_corners(one.predicted_box)}, IoU {one.overlap:.2f}"
        return f"{subject}: no object is seen there"


def find_label_errors(
    data: Data,
    model: str | Path,
    folds: int = 3,
    *,
    split: str = "train",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> LabelErrors:
    """Rank the probable label errors of a split: overlooked objects, wrong classes, badly placed and spurious boxes.

    As many models as there are folds are trained as the model was, each without one fold of the images, and predict
    what they have not seen. They begin with the weights that the model's training began with, never with its own,
    which know the errors. Together, they take folds - 1 times as long as the model took.

    Args:
        data: a folder, ``DataFiles``, an ``ImageDataset``, or one for each split by its name.
        model: a run or checkpoint, or another source that ``boxwright.load`` takes, whose recipe is trained.
        folds: number of folds, at least 2; or 0 for predictions of the model itself, which must not have seen the data.
        split: the name of the split.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and progress; notes become warnings where None.
        overrides: changes of the recipe, as for ``boxwright.train``; a length of training is that of each fold.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the data is faulty, the model is no detector, there are fewer images than folds, or an override
            does not fit.
        KeyboardInterrupt: Ctrl-C was pressed; nothing is kept.
    """
    observer = observer or Observer()
    if folds < 0 or folds == 1:
        raise ValueError(f"folds are at least 2, or 0 for predictions of the model itself, not {folds}")
    weights = read_model(model, trusted=trusted)
    if weights.recipe.task != "detection":
        raise ValueError(f"{model}: label errors are found by a detector, and this model is for {weights.recipe.task}")
    read = read_split(data, split, categories=None if folds else weights.categories, observer=observer)
    most = max(MAX_DETECTIONS, 2 * max_objects(read))
    if folds:
        training = prepare_training(weights, describe_data(read, data), folds, overrides or {}, observer)
        detections = _predict_folds(read, training, folds, most, observer)
    else:
        if has_seen(weights, describe_data(read, data)):
            observer.note(f"{model} was trained on this data and repeats its errors: give --folds 3")
        with observer.track("predicting") as progress:
            detections = predict_images(build_model(weights), read, most, progress)
    return LabelErrors(
        data=read,
        suspicions=tuple(rank_label_errors(read, detections)),
        folds=folds,
        ap50=evaluate_detections(read, detections, max_detections=most).AP50,
    )


def _predict_folds(
    data: DetectionData, training: FoldTraining, folds: int, max_detections: int, observer: Observer
) -> dict[int, Detections]:
    """Predict every image by a model that was trained on the other folds; by image id."""
    dealt = deal_folds(data, folds, seed=training.recipe.train.runtime.seed)
    detections: dict[int, Detections] = {}
    for number, held_out in enumerate(dealt, start=1):
        hidden = set(held_out)
        others = [index for index in range(len(data.records)) if index not in hidden]
        with (
            tempfile.TemporaryDirectory(prefix="boxwright-fold-") as folder,
            observer.track(f"training without fold {number} of {folds}") as progress,
        ):
            detector = train_on(select_records(data, others), training, Path(folder), progress)
        with observer.track(f"predicting fold {number} of {folds}") as progress:
            detections |= predict_images(detector, select_records(data, held_out), max_detections, progress)
    return detections


def _corners(box: tuple[float, float, float, float]) -> str:
    return "[" + ", ".join(f"{value:.0f}" for value in box) + "]"
