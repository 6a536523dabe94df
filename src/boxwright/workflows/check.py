"""Check of a data set before any training: the data itself, and what a recipe makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.data.doctor.classes import class_counts
from boxwright.data.doctor.examine import examine_images, examine_split, examine_splits
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.doctor.repeated_images import find_repeated_images
from boxwright.data.doctor.splits import NO_VAL_SPLIT
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.join_findings import UNUSED_CATEGORY
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.files import check_target, write_text
from boxwright.reports.check_page import CheckFacts, KindSection, render_check
from boxwright.reports.page import require_extra
from boxwright.structures import Task
from boxwright.workflows.check_attempts import Attempts
from boxwright.workflows.check_fit import check_fit
from boxwright.workflows.check_fix import check_fix_folder, write_repaired
from boxwright.workflows.check_learning import check_learning
from boxwright.workflows.check_network import check_network
from boxwright.workflows.check_report import (
    ALL_SPLITS,
    PART_TITLES,
    CheckPart,
    CheckReport,
    SplitCounts,
    SplitFinding,
)
from boxwright.workflows.drawn_names import note_undrawable_names
from boxwright.workflows.label_errors import LabelErrors, find_label_errors, read_ranking_model
from boxwright.workflows.observer import Observer, ProgressOnly
from boxwright.workflows.reading import Data, DataFiles, all_splits, data_name, read_split

SPLIT_UNREADABLE = FindingKind("split_unreadable", "error", "splits cannot be read", "nothing else of them was checked")


def check(
    data: Data,
    *,
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    try_out: bool = False,
    model: str | Path | None = None,
    folds: int = 3,
    label_split: str = "train",
    fix: str | Path | None = None,
    html: str | Path | None = None,
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> CheckReport:
    """Check a data set: every file, image and object, the splits against each other, and what a recipe makes of it.

    Args:
        data: a folder, ``DataFiles``, an ``ImageDataset``, or one for each split by its name.
        recipe: also check what its network will see of the objects.
        try_out: also make the worst training step of the recipe, for its time and memory, and learn a few images by
            heart; takes minutes.
        model: rank label errors by this run or checkpoint.
        folds: train so many models like it, each without a part of the images, to rank them; 0 takes it as it is.
        label_split: the split whose label errors are ranked.
        fix: a folder that does not exist or is empty: write a repaired copy there, and what was changed.
        html: write a page with all findings and their images; needs the extra ``report``.
        observer: hears progress.
        overrides: changes of the recipe, as for ``boxwright.train``; without one, of that of the models of the folds.

    Raises:
        FileNotFoundError: there is no such data set, or no such model.
        ValueError: its format is not known, no split of it can be read, or the recipe, the model or a number is faulty.
    """
    observer = observer or Observer()
    if try_out and recipe is None:
        raise ValueError("there is nothing to try without a recipe: give one with --recipe R")
    resolved = None if recipe is None else _resolve(recipe, overrides, observer)
    of_folds = overrides if recipe is None else None
    if model is not None:
        read_ranking_model(model, folds, overrides=of_folds)
    _check_targets(data, fix, html)
    task = data_task(data) if resolved is None else resolved.task
    splits, unreadable = read_splits(data, task, observer)
    tables = {name: ObjectTable.of(one) for name, one in splits.items()}
    findings = [*unreadable, *examine_data(splits, tables, task, observer, unlisted=not unreadable)]
    attempts = Attempts()
    parts = {} if resolved is None else _check_recipe(splits, resolved, try_out, observer, attempts)
    if model is not None:
        rank = partial(find_label_errors, data, model, folds, split=label_split, says_reading=False)
        parts["label_errors"] = attempts.make("label_errors", partial(rank, observer=observer, overrides=of_folds))
    write = partial(write_repaired, splits, task=task, unreadable=unreadable)
    fixes = None if fix is None else attempts.make("repaired copy", partial(write, Path(fix), observer))
    report = CheckReport(
        data=data_name(data),
        splits={name: count_split(table) for name, table in tables.items()},
        findings=(*findings, *_findings_of(parts), *attempts.findings),
        **parts,
        fixed=None if fix is None or fixes is None else Path(fix),
        fixes=tuple(fixes or ()),
    )
    return report if html is None else _write_or_report(report, Path(html), splits, tables, observer)


def _resolve(
    recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None, observer: Observer
) -> Recipe:
    resolution = resolve(recipe, overrides)
    for note in resolution.notes:
        observer.note(note)
    return resolution.recipe


def _check_targets(data: Data, fix: str | Path | None, html: str | Path | None) -> None:
    """Make sure, before the work, that what was asked for can be written.

    Raises:
        ValueError: it cannot.
    """
    if fix is not None:
        check_fix_folder(Path(fix), _folders(data))
    if html is not None:
        require_extra()
        check_target(Path(html))


def _findings_of(parts: Mapping[str, CheckPart | None]) -> list[SplitFinding]:
    return [one for part in parts.values() if part is not None for one in part.split_findings]


def _write_or_report(
    report: CheckReport,
    path: Path,
    splits: Mapping[str, DetectionData],
    tables: Mapping[str, ObjectTable],
    observer: Observer,
) -> CheckReport:
    """Write the page; where that fails, it is one more finding."""
    labels = {label for one in tables.values() for label in np.unique(one.labels).tolist()}
    note_undrawable_names(next(iter(splits.values())).categories, labels, observer)
    attempts = Attempts()
    attempts.make("page", partial(write_page, report, path, splits, tables))
    return replace(report, findings=(*report.findings, *attempts.findings))


def _check_recipe(
    splits: Mapping[str, DetectionData], recipe: Recipe, try_out: bool, observer: Observer, attempts: Attempts
) -> dict[str, CheckPart | None]:
    """Check what a recipe makes of the data; by the names of the report's fields."""
    parts: dict[str, CheckPart | None] = {}
    parts["network"] = attempts.make("network", partial(check_network, splits, recipe, observer=observer))
    if not try_out:
        return parts
    fit = attempts.make("fit", partial(check_fit, splits, recipe, observer=observer))
    parts["fit"] = fit
    if fit is not None and fit.fits is False:
        # The system would end this process, and with it all that was found.
        attempts.skip("learning", "not tried, as the worst step does not fit")
    else:
        parts["learning"] = attempts.make("learning", partial(check_learning, splits, recipe, observer=observer))
    return parts


def write_page(
    report: CheckReport, path: Path, splits: Mapping[str, DetectionData], tables: Mapping[str, ObjectTable]
) -> None:
    """Write a page with everything; the images of the first findings are drawn."""
    ranked = report.label_errors
    facts = CheckFacts(
        title=f"Check of {report.data}",
        verdict=report.verdict(),
        counts={
            name: {
                "images": counts.images,
                "objects": counts.objects,
                "crowd regions": counts.crowds,
                "images without objects": counts.empty_images,
            }
            for name, counts in report.splits.items()
        },
        kinds=[
            KindSection(kind, [(one.split, one.finding) for one in members])
            for kind, members in report.by_kind().items()
        ],
        parts={PART_TITLES[name]: part.lines() for name, part in report.parts.items()},
        predicted=ranked.predictions() if isinstance(ranked, LabelErrors) else {},
    )
    write_text(path, render_check(facts, splits, tables))


def _folders(data: Data) -> list[Path]:
    """List the folders of a data set, as far as they are named."""
    if isinstance(data, DataFiles):
        named = [data.folder, *data.images.values(), *(Path(one).parent for one in data.annotations.values())]
        return [Path(one) for one in named if one is not None]
    return [Path(data)] if isinstance(data, str | Path) else []


def brief_check(splits: Mapping[str, DetectionData], task: Task, detector: Detector | None = None) -> list[str]:
    """Say in a few lines what training on some splits should know; takes seconds for a million objects.

    Args:
        splits: as they were read; facts of their images are remembered.
        task: of the model.
        detector: that is to be trained, for what it will see of the objects; None where there is none yet.
    """
    tables = {name: ObjectTable.of(one) for name, one in splits.items()}
    findings = [
        SplitFinding(name, finding)
        for name, table in tables.items()
        for finding in examine_split(table, name, task=task, masks=False)
    ]
    findings += [SplitFinding(*one) for one in find_repeated_images(splits, tables, near=False)]
    of_all = [one for one in examine_splits(splits, tables) if one.kind is not NO_VAL_SPLIT]  # training says it itself
    findings += [SplitFinding(ALL_SPLITS, finding) for finding in of_all]
    report = CheckReport(data="", splits={}, findings=tuple(findings))
    network = [] if detector is None else check_network({"train": splits["train"]}, detector).brief()
    return [*(f"warning: {line}" for line in network), *report.brief("`boxwright check DATA`")]


def examine_data(
    splits: Mapping[str, DetectionData],
    tables: Mapping[str, ObjectTable],
    task: Task,
    observer: Observer,
    *,
    unlisted: bool = True,
) -> list[SplitFinding]:
    """Examine all splits, each by itself and against the others."""
    findings = []
    for name, one in splits.items():
        observer.announce(f"examining {name}")
        # Classes without objects are found over all splits together.
        own = [finding for finding in one.findings if finding.kind is not UNUSED_CATEGORY]
        of_split = own + examine_split(tables[name], name, task=task)
        findings += [SplitFinding(name, finding) for finding in of_split]
    observer.announce("examining images")
    findings += [SplitFinding(*one) for one in examine_images(splits, tables, unlisted=unlisted)]
    return findings + [SplitFinding(ALL_SPLITS, finding) for finding in examine_splits(splits, tables)]


def read_splits(data: Data, task: Task, observer: Observer) -> tuple[dict[str, DetectionData], list[SplitFinding]]:
    """Read every split that can be read; the fault of another one is a finding.

    Raises:
        FileNotFoundError: there is no such data set.
        ValueError: its format is not known, or no split of it can be read.
    """
    splits, findings, errors = {}, [], []
    for name in all_splits(data, task) or ["train"]:
        try:
            splits[name] = read_split(
                data, name, task=task, drop_unreadable_images=True, observer=ProgressOnly(observer)
            )
        except (ValueError, FileNotFoundError) as error:
            errors.append(error)
            findings.append(SplitFinding(name, Finding(SPLIT_UNREADABLE, name, str(error))))
    if not splits:
        raise errors[0]
    return splits, findings


def data_task(data: Data) -> Task:
    """Tell what a data set is for: detection, but for folders of classes."""
    if all_splits(data) or not isinstance(data, str | Path):
        return "detection"
    return "classification" if all_splits(data, "classification") else "detection"


def count_split(objects: ObjectTable) -> SplitCounts:
    """Count images and objects of a split."""
    crowds = int(objects.crowd.sum())
    return SplitCounts(
        images=len(objects.records),
        objects=len(objects) - crowds,
        crowds=crowds,
        empty_images=sum(not len(record.labels) for record in objects.records),
        classes=dict(zip(objects.class_names, class_counts(objects).tolist(), strict=True)),
    )
