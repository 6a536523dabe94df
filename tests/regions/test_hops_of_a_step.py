"""The way of one training step of Faster R-CNN through the files, for a reader who follows it.

Every call of a function of the package counts, in the order in which they begin, from the forward pass of the detector
over its loss to the end of the backward pass; comprehensions are functions, so that newer Pythons, where they are not,
count no more. *Files* are those with a function that was called. *Changes of folder* are calls of a function in another
folder than the function of the call before: among all calls, and among the first calls of each function, which are what
a reader reads. Returns count as no step, and files beside ``detector.py`` are one folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import boxwright
from boxwright.structures import Targets

PACKAGE = Path(boxwright.__file__).parent


def record_calls_of_a_step(recipe: str) -> list[tuple[str, str]]:
    """Record the file and the name of each function of the package, as they are called in one training step."""
    torch.manual_seed(0)
    detector = boxwright.build(recipe, num_classes=2).train()
    target = Targets(torch.tensor([0, 1]), torch.tensor([[10.0, 10, 80, 90], [60, 30, 150, 140]]), (160, 160))
    images, targets = torch.rand(2, 3, 160, 160), [target, target]
    calls: list[tuple[str, str]] = []

    def record(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            calls.append((path.relative_to(PACKAGE).as_posix(), frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        output = detector(images, None, targets)
        torch.stack(list(detector.loss(output, targets).values())).sum().backward()
    finally:
        sys.setprofile(before)
    return calls


def count_changes_of_folder(calls: Sequence[tuple[str, str]]) -> int:
    return sum(Path(a).parent != Path(b).parent for (a, _), (b, _) in pairwise(calls))


def test_few_files_and_changes_of_folder() -> None:
    calls = record_calls_of_a_step("faster_rcnn_r18_fpn")
    assert len({file for file, _ in calls}) <= 18
    assert count_changes_of_folder(list(dict.fromkeys(calls))) <= 21
    assert count_changes_of_folder(calls) <= 27
