"""Repaired copies of data sets, with a log of each change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from boxwright.data.doctor.repair import repair
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.records import DetectionData
from boxwright.data.writers import _class_folders, coco
from boxwright.files import check_folder, write_text
from boxwright.structures import Task
from boxwright.workflows.check_report import SplitFinding
from boxwright.workflows.observer import Observer

LOG_FILE = "fixes.json"

SPLIT_LEFT_OUT = FindingKind(
    "split_left_out", "error", "splits are not in the copy, as they cannot be read", "mend them first"
)


def check_fix_folder(folder: Path, sources: Sequence[Path]) -> None:
    """Make sure that a repaired copy can be written.

    Args:
        folder: of the copy.
        sources: folders of the data set, which are never written to.

    Raises:
        ValueError: it cannot be written, is not empty, or lies in the data set.
    """
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and is not overwritten: give --fix a folder that does not exist")
    target = folder.resolve()
    for source in sources:
        if target.is_relative_to(source.resolve()):
            raise ValueError(f"{folder} lies in the data set {source}, which is never written to: give another --fix")


def write_repaired(
    splits: Mapping[str, DetectionData],
    folder: Path,
    observer: Observer,
    *,
    task: Task = "detection",
    unreadable: Sequence[SplitFinding] = (),
) -> list[SplitFinding]:
    """Write a repaired copy in COCO format, or as folders of classes, and ``fixes.json``; return each change.

    Args:
        splits: as they were read.
        folder: of the copy; images are links where the file system allows it.
        observer: told what begins.
        task: that the data set is for.
        unreadable: findings of the splits that cannot be read, which are named as missing in the copy.
    """
    observer.announce(f"writing a repaired copy into {folder}")
    write = _class_folders.write if task == "classification" else coco.write
    repaired = {}
    changes = [SplitFinding(split, Finding(SPLIT_LEFT_OUT, split, one.detail)) for split, one in unreadable]
    for name, data in splits.items():
        repaired[name], of_split = repair(data, name, task)
        changes += [SplitFinding(name, one) for one in of_split]
    changes += [SplitFinding("", one) for one in write(repaired, folder, link=True)]
    document = {"changes": [one.to_json() for one in changes]}
    write_text(folder / LOG_FILE, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return changes
