"""``boxwright eval``: measure a trained detector on a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from boxwright.cli.arguments import CommandParser
from boxwright.cli.data_arguments import read_split
from boxwright.cli.validation import Validation
from boxwright.cli.writing import check_target, write_text
from boxwright.compose.detectors import load
from boxwright.detector import Detector, SelectingHead
from boxwright.evaluation.tables import metrics_tables
from boxwright.losses.selection import SelectionQuality
from boxwright.structures import Batch
from boxwright.training.distributed import choose_device


def run(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = CommandParser("eval", description="Measure a trained detector: the 12 COCO numbers, a table per class.")
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, or the folder of a run")
    parser.add_argument("--data", metavar="DIR", help="data set: annotations/val.json + images/, or a like layout")
    parser.add_argument("--split", default="val", help="which split of it (default: val)")
    parser.add_argument("--annotations", metavar="FILE", help="annotation file, instead of --data's")
    parser.add_argument("--images", metavar="DIR", help="pictures, instead of --data's")
    parser.add_argument("--json", metavar="FILE", help="also write the numbers as JSON")
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="pictures at a time (default: 8)")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="reading processes (default: 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    parser.add_argument("--trust", metavar="MODULE", action="append", default=[], help="import parts from MODULE")
    options = parser.parse(argv)
    if options.data is None and options.annotations is None:
        parser.error("which data set? give --data DIR, or --annotations FILE and --images DIR")
    target = Path(options.json) if options.json else None
    if target is not None:
        check_target(target)
    detector = load(options.model, trusted=options.trust).to(choose_device(options.device))
    data = read_split(
        Console(stderr=True),
        options.split,
        options.data,
        annotations=options.annotations,
        images=options.images,
        categories=detector.categories,
    )
    validation = Validation(data, batch_size=options.batch_size, workers=options.workers)
    selection = SelectionCounter(detector)
    metrics, _ = validation.detections(detector, observe=selection)
    Console().print(metrics_tables(metrics))
    if selection.quality is not None:
        print(selection.line())
    if target is not None:
        write_text(target, json.dumps(metrics.to_json() | selection.to_json(), indent=2) + "\n")
    return 0


class SelectionCounter:
    """Counts, batch by batch, what the queries are worth that the detector's head selects.

    Args:
        detector: whose head may or may not select queries; ``quality`` stays None where it does not.
    """

    def __init__(self, detector: Detector) -> None:
        self.head = detector.head if isinstance(detector.head, SelectingHead) else None
        self.quality: SelectionQuality | None = None

    def __call__(self, output: Any, batch: Batch) -> None:
        """Count one batch."""
        quality = self.head.selection_quality(output, batch.targets) if self.head else None
        if quality is not None:
            self.quality = quality if self.quality is None else self.quality + quality

    def line(self) -> str:
        """The shares in a sentence."""
        assert self.quality is not None
        confident, fitting = self.quality.shares()
        return (
            f"of {self.quality.selected:,} selected queries {confident:.2%} have a score above 0.5, "
            f"{fitting:.2%} and an IoU above 0.5"
        )

    def to_json(self) -> dict[str, Any]:
        """``selection``, where there is one: Prop_cls and Prop_both of RT-DETR's Table 4, as shares."""
        if self.quality is None:
            return {}
        confident, fitting = self.quality.shares()
        return {"selection": {"selected": self.quality.selected, "Prop_cls": confident, "Prop_both": fitting}}
