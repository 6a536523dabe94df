"""Label errors of a data set: annotations that models contradict which have not seen their images."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.data.doctor.object_table import image_names
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.folds import deal_folds, select_records
from boxwright.data.records import DetectionData, max_objects
from boxwright.evaluation.coco_metrics import evaluate_detections
from boxwright.evaluation.label_errors import ErrorKind, Suspicion, rank_label_errors
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright.reports.check_page import Prediction
from boxwright.weights.model import ModelWeights, build_model, read_model
from boxwright.workflows.check_report import SplitFinding
from boxwright.workflows.fold_training import (
    FoldTraining,
    has_seen,
    predict_images,
    prepare_training,
    resolve_fold_training,
    train_on,
)
from boxwright.workflows.observer import Observer, ProgressOnly
from boxwright.workflows.passports import describe_data
from boxwright.workflows.reading import Data, read_split
from boxwright_runtime.detections import Detections

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
        split: the name of the split.
        ap50: AP at IoU 0.5 of the predictions against the annotations: the higher, the more the ranking is worth.
    """

    data: DetectionData
    suspicions: tuple[Suspicion, ...]
    folds: int
    ap50: float
    split: str = "train"

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
        return tuple(finding for finding, _ in self.probable())

    @property
    def split_findings(self) -> tuple[SplitFinding, ...]:
        """The same, with the split."""
        return tuple(SplitFinding(self.split, one) for one in self.findings)

    def probable(self) -> list[tuple[Finding, Suspicion]]:
        """Return these findings, each with the suspicion that it tells of."""
        names = self._image_names()
        return [
            (Finding(FINDING_KINDS[one.kind], names[one.image_id], self._describe(one)), one)
            for one in self.suspicions
            if one.probability >= PROBABLE
        ]

    def predictions(self) -> dict[Finding, Prediction]:
        """Return what the models see in place of an annotation, or without one, for each of these findings."""
        names = [category.name for category in self.data.categories]
        return {
            finding: Prediction(names[one.predicted_label], one.predicted_box, one.confidence)
            for finding, one in self.probable()
            if one.predicted_label is not None and one.predicted_box is not None and one.kind != "spurious"
        }

    def lines(self) -> list[str]:
        """Describe what was compared; the findings name what is probable."""
        models = f"{self.folds} models that had not seen the image" if self.folds else "the model"
        unmatched = len(self.suspicions) - self.num_annotations
        number = sum(one.probability >= PROBABLE for one in self.suspicions)
        return [
            f"{self.split}: {self.num_annotations:,} annotations and {unmatched:,} predicted objects without one, "
            f"ranked by {models} (AP50 {self.ap50:.2f} against the annotations)",
            f"{number:,} errors are probable",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the whole ranking as plain values, and what made it."""
        return {"split": self.split, "folds": self.folds, "ap50": self.ap50, "ranking": self.ranking()}

    def ranking(self) -> list[dict[str, Any]]:
        """Return the ranking as plain values, with names of files and classes."""
        names = self._image_names()
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

    def _image_names(self) -> dict[int, str]:
        """Names by image id: paths inside the folder that has all images."""
        records = self.data.records
        return dict(zip((record.image_id for record in records), image_names(records), strict=True))

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
    says_reading: bool = True,
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
        says_reading: the observer hears notes of reading, too: what was dropped or repaired.
        observer: hears notes and progress; notes become warnings where None.
        overrides: changes of the recipe, as for ``boxwright.train``; a length of training is that of each fold.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the data is faulty, the model is no detector, there are fewer images than folds, or an override
            does not fit.
        KeyboardInterrupt: Ctrl-C was pressed; nothing is kept.
    """
    observer = observer or Observer()
    weights = read_ranking_model(model, folds, trusted=trusted, overrides=overrides)
    read = read_split(
        data,
        split,
        categories=None if folds else weights.categories,
        drop_unreadable_images=True,
        observer=observer if says_reading else ProgressOnly(observer),
    )
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
        split=split,
        ap50=evaluate_detections(read, detections, max_detections=most).AP50,
    )


def read_ranking_model(
    model: str | Path,
    folds: int,
    *,
    trusted: Collection[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> ModelWeights:
    """Read the model that label errors are ranked by, and make sure that it can be used so, before any image is read.

    Args:
        model: as of ``find_label_errors``.
        folds: likewise.
        trusted: likewise.
        overrides: likewise.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is no detector, or the number of folds or an override does not fit.
    """
    if folds < 0 or folds == 1:
        raise ValueError(f"folds are at least 2, or 0 for predictions of the model itself, not {folds}")
    weights = read_model(model, trusted=trusted)
    if weights.recipe.task != "detection":
        raise ValueError(f"{model}: label errors are found by a detector, and this model is for {weights.recipe.task}")
    if folds:
        resolve_fold_training(weights, folds, overrides or {})
    elif overrides:
        raise ValueError(f"{next(iter(overrides))} changes training, but with 0 folds nothing is trained: leave it out")
    return weights


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
