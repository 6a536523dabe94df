"""A report on a model: one page that tells how good it is, where it is wrong, and what it is."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from boxwright.compose.recipe import Recipe
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.evaluation.class_accuracy import likeliest_classes
from boxwright.evaluation.error_kinds import find_errors
from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation
from boxwright.files import check_target
from boxwright.model_card import describe_passport
from boxwright.passport import Passport
from boxwright.reports.page import require_extra
from boxwright.reports.page_images import ReportImage
from boxwright.reports.report import ReportFacts, write_report
from boxwright.reports.section import Section
from boxwright.score_tuning import ScoreTuning
from boxwright.training.log import LOG, read_log
from boxwright.workflows.confusion_sections import confusion_section, slices_section
from boxwright.workflows.data_sections import data_sections
from boxwright.workflows.drawn_names import drawn_labels, note_undrawable_names
from boxwright.workflows.evaluate import evaluate
from boxwright.workflows.machine import describe_machine
from boxwright.workflows.models import load_predictor
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, data_name, data_path
from boxwright.workflows.report_sections import accuracy_sections, error_sections
from boxwright.workflows.score_sections import calibration_section, operating_section
from boxwright_runtime import Runtime

MOST_WORST = 40
"""Images of a page that users still look through, and that keep it below 6 MB."""

DRAWN_THRESHOLD = 0.3


@dataclass(frozen=True, eq=False)
class ReportResult:
    """A report that was written.

    Args:
        path: of the page.
        evaluation: that it shows.
    """

    path: Path
    evaluation: Evaluation | ClassEvaluation


def report(
    model: str | Path | Detector | Runtime,
    data: Data,
    *,
    split: str = "val",
    out: str | Path = "report.html",
    threshold: float = DRAWN_THRESHOLD,
    num_images: int = MOST_WORST,
    batch_size: int = 8,
    workers: int = 0,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ReportResult:
    """Measure a model and write a page on it: numbers, errors by kind, the worst images, curves of training, origin.

    Args:
        model: as for ``evaluate``. Of the folder of a run, the curves of training are shown too.
        data: as for ``evaluate``.
        split: the name of the split.
        out: the HTML file; an older one is replaced once this one is complete.
        threshold: least score of detections that are drawn, and that count for the choice of the worst images.
        num_images: at most so many of the worst images are shown.
        batch_size: images that go through the network together.
        workers: processes that read images, of an exported file threads; 0 reads in this one.
        device: as for ``evaluate``.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and progress; notes become warnings where None.
        overrides: changes of the model's recipe, as for ``boxwright.load``.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: no model, faulty data, or the extra ``report`` is not installed.
    """
    require_extra()
    check_target(path := Path(out))
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is between 0 and 1, not {threshold}")
    observer, compute = observer or Observer(), ComputeOptions.of(device)
    predictor = load_predictor(model, device=compute, trusted=trusted, observer=observer, overrides=overrides)
    evaluation = evaluate(
        predictor, data, split=split, batch_size=batch_size, workers=workers, device=compute, observer=observer
    )
    source = str(model) if isinstance(model, str | Path) else type(model).__name__
    observer.announce(f"writing {path}")
    images = select_worst(evaluation, threshold, num_images)
    note_undrawable_names(evaluation.data.categories, drawn_labels(images), observer)
    write_evaluation(
        path,
        evaluation,
        split=split,
        tuning=predictor.tuning if isinstance(predictor, Detector) else None,
        history=_read_history(model),
        images=images,
        threshold=threshold,
        facts=report_facts(predictor, evaluation, source=source, data=data_path(data), split=split, out=path),
        title=f"{source} on {data_name(data)}",
    )
    return ReportResult(path, evaluation)


def _read_history(model: str | Path | Detector | Runtime) -> list[dict[str, Any]]:
    """Read the log of the folder of a run; of anything else there is none."""
    if isinstance(model, str | Path) and (Path(model) / LOG).is_file():
        return read_log(Path(model))
    return []


def write_evaluation(
    path: Path,
    evaluation: Evaluation | ClassEvaluation,
    *,
    split: str,
    history: Sequence[Mapping[str, Any]],
    images: Sequence[ReportImage],
    threshold: float,
    tuning: ScoreTuning | None = None,
    facts: ReportFacts,
    title: str,
) -> None:
    """Write the page of an evaluation that is there.

    Args:
        path: of the page.
        evaluation: numbers and detections.
        split: name of the data.
        history: rows of the log of training.
        images: that are shown.
        threshold: least score of detections that are drawn.
        tuning: of the model's scores.
        facts: beside the numbers.
        title: of the page.
    """
    is_of_boxes = isinstance(evaluation, Evaluation)
    metrics = evaluation.to_json(curves=True) if isinstance(evaluation, Evaluation) else _accuracies(evaluation)
    has_masks = isinstance(evaluation, Evaluation) and evaluation.masks is not None
    write_report(
        path,
        title=title,
        metrics=metrics,
        history=history,
        causes=[one.text for one in evaluation.findings] if isinstance(evaluation, Evaluation) else (),
        sections=list_sections(evaluation, tuning),
        data_sections=data_sections(
            evaluation.data, split, "detection" if is_of_boxes else "classification", with_masks=has_masks
        ),
        images=images,
        categories=evaluation.data.categories,
        threshold=threshold,
        facts=facts,
    )


def _accuracies(evaluation: ClassEvaluation) -> dict[str, float]:
    return {"top1": evaluation.accuracy.top1, "top5": evaluation.accuracy.top5}


def list_sections(evaluation: Evaluation | ClassEvaluation, tuning: ScoreTuning | None = None) -> list[Section]:
    """List the sections of a report that tell where a model is wrong, and what its scores mean.

    Args:
        evaluation: numbers and detections.
        tuning: of the model's scores.
    """
    if isinstance(evaluation, ClassEvaluation):
        of_classes = confusion_section(evaluation.confusion, is_of_boxes=False)
        return [*accuracy_sections(evaluation.accuracy), of_classes, calibration_section(evaluation)]
    sections = error_sections(evaluation.errors, "" if evaluation.masks is None else "boxes")
    if evaluation.masks is not None:
        of_masks = find_errors(
            evaluation.data, evaluation.detections, iou_type="segm", max_detections=evaluation.boxes.max_detections
        )
        sections += error_sections(of_masks, "masks")
    return [
        *sections,
        confusion_section(evaluation.confusion),
        slices_section(evaluation.slices),
        operating_section(evaluation, tuning),
        calibration_section(evaluation, tuning),
    ]


def select_worst(evaluation: Evaluation | ClassEvaluation, threshold: float, count: int) -> list[ReportImage]:
    """Select the images with most errors among the detections above a score, or those whose class is most surely wrong.

    They are read.
    """
    if isinstance(evaluation, ClassEvaluation):
        return _select_misclassified(evaluation, count)
    above = {image_id: one[one.scores >= threshold] for image_id, one in evaluation.detections.items()}
    errors = find_errors(evaluation.data, above)
    worst = errors.worst_images(count)
    records = {record.image_id: record for record in evaluation.data.records}
    images = []
    for one in worst:
        kinds = [kind for kind in one.detections if kind not in ("hit", "ignored")] + ["missed"] * len(one.missed)
        note = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        record = records[one.image_id]
        images.append(
            ReportImage(
                record.read(), record, above.get(one.image_id, evaluation.detections[one.image_id]), "overlay", note
            )
        )
    return images


def _select_misclassified(evaluation: ClassEvaluation, count: int) -> list[ReportImage]:
    own, likeliest, scores = likeliest_classes(evaluation.data, evaluation.detections)
    wrong = np.flatnonzero(own != likeliest)
    names = [*(one.name for one in evaluation.data.categories), "nothing"]
    images = []
    for index in wrong[np.argsort(-scores[wrong], kind="stable")][:count].tolist():
        record = evaluation.data.records[index]
        note = f"{names[own[index]]} as {names[likeliest[index]]}, {scores[index]:.2f}"
        images.append(ReportImage(record.read(), record, evaluation.detections[record.image_id], None, note))
    return images


def report_facts(
    predictor: Detector | Runtime,
    evaluation: Evaluation | ClassEvaluation,
    *,
    source: str,
    data: str,
    split: str,
    out: Path,
) -> ReportFacts:
    """Collect what a page tells of a model beside its numbers."""
    recipe = predictor.recipe if isinstance(predictor, Detector) else None
    passport: Passport | None = predictor.passport if isinstance(predictor, Detector) else None
    parts = [part.name for part in recipe.parts().values()] if isinstance(recipe, Recipe) else []
    machine = describe_machine()
    environment = {"processor": machine["processor"], "cores": machine["cores"], **machine["versions"]}
    return ReportFacts(
        summary={
            "model": source,
            **({"parts": ", ".join(parts)} if parts else {}),
            "data": f"{Path(data).name}, {split}: {len(evaluation.detections):,} images",
        },
        notes=evaluation.notes,
        recipe=yaml.safe_dump(recipe.to_dict(), sort_keys=False) if isinstance(recipe, Recipe) else "",
        passport="\n".join(describe_passport(passport)) if passport is not None else "",
        environment={name: str(value) for name, value in environment.items()},
        command=shlex.join(["boxwright", "report", source, "--data", data, "--split", split, "--out", str(out)]),
    )
