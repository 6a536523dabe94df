"""A report on a model: one page that tells how good it is, where it is wrong, and what it is."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from boxwright.compose.recipe import Recipe
from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.evaluation.error_kinds import find_errors
from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation
from boxwright.files import check_target
from boxwright.model_card import describe_passport
from boxwright.passport import Passport
from boxwright.reports.page import require_extra
from boxwright.reports.report import ReportFacts, ReportImage, write_report
from boxwright.reports.section import Section
from boxwright.structures import Category
from boxwright.training.log import LOG, read_log
from boxwright.workflows.evaluate import evaluate
from boxwright.workflows.machine import describe_machine
from boxwright.workflows.models import load_predictor
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, data_name
from boxwright.workflows.report_sections import accuracy_sections, error_sections
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
    device: str = "auto",
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
    path = Path(out)
    check_target(path)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is between 0 and 1, not {threshold}")
    observer = observer or Observer()
    predictor = load_predictor(model, device=device, trusted=trusted, observer=observer, overrides=overrides)
    if isinstance(predictor, Detector) and not isinstance(model, Detector):
        predictor.to(choose_device(device))
    evaluation = evaluate(predictor, data, split=split, batch_size=batch_size, workers=workers, observer=observer)
    folder = Path(model) if isinstance(model, str | Path) else Path()
    history = read_log(folder) if (folder / LOG).is_file() else []
    source = str(model) if isinstance(model, str | Path) else type(model).__name__
    facts = report_facts(predictor, evaluation, source=source, data=data_name(data), split=split, out=path)
    observer.announce(f"writing {path}")
    write_evaluation(
        path,
        evaluation,
        history=history,
        images=select_worst(evaluation, threshold, num_images),
        threshold=threshold,
        facts=facts,
        title=f"{source} on {data_name(data)}",
    )
    return ReportResult(path, evaluation)


def write_evaluation(
    path: Path,
    evaluation: Evaluation | ClassEvaluation,
    *,
    history: Sequence[Mapping[str, Any]],
    images: Sequence[ReportImage],
    threshold: float,
    facts: ReportFacts,
    title: str,
) -> None:
    """Write the page of an evaluation that is there.

    Args:
        path: of the page.
        evaluation: numbers and detections.
        history: rows of the log of training.
        images: that are shown.
        threshold: least score of detections that are drawn.
        facts: beside the numbers.
        title: of the page.
    """
    categories: tuple[Category, ...] = evaluation.data.categories if isinstance(evaluation, Evaluation) else ()
    write_report(
        path,
        title=title,
        metrics=evaluation.to_json(curves=True) if isinstance(evaluation, Evaluation) else None,
        history=history,
        sections=list_sections(evaluation),
        images=images,
        categories=categories,
        threshold=threshold,
        facts=facts,
    )


def list_sections(evaluation: Evaluation | ClassEvaluation) -> list[Section]:
    """List the tables of a report on an evaluation."""
    if isinstance(evaluation, ClassEvaluation):
        return accuracy_sections(evaluation.accuracy)
    limit = evaluation.boxes.max_detections
    errors = find_errors(evaluation.data, evaluation.detections, max_detections=limit)
    if evaluation.masks is None:
        return error_sections(errors)
    of_masks = find_errors(evaluation.data, evaluation.detections, iou_type="segm", max_detections=limit)
    return [*error_sections(errors, "boxes"), *error_sections(of_masks, "masks")]


def select_worst(evaluation: Evaluation | ClassEvaluation, threshold: float, count: int) -> list[ReportImage]:
    """Select the images with most errors among the detections above a score, and read them."""
    if isinstance(evaluation, ClassEvaluation):
        return []
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
            "data": f"{data}, {split}: {len(evaluation.detections):,} images",
        },
        notes=evaluation.notes,
        recipe=yaml.safe_dump(recipe.to_dict(), sort_keys=False) if isinstance(recipe, Recipe) else "",
        passport="\n".join(describe_passport(passport)) if passport is not None else "",
        environment={name: str(value) for name, value in environment.items()},
        command=shlex.join(["boxwright", "report", source, "--data", data, "--split", split, "--out", str(out)]),
    )
