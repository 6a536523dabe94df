"""``boxwright eval``: measure a trained detector on a data set."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from boxwright.cli.arguments import CommandParser
from boxwright.cli.data_arguments import read_split
from boxwright.compose.detectors import build_resolved, checkpoint_path, load, read_checkpoint
from boxwright.contracts import SelectingHead
from boxwright.data.masks import check_masks
from boxwright.detector import Detector
from boxwright.evaluation.limits import MAX_DETECTIONS, head_limits
from boxwright.evaluation.tables import evaluation_tables
from boxwright.files import check_target, write_text
from boxwright.structures import Batch, SelectionQuality
from boxwright.training.distributed import choose_device
from boxwright.workflows.validation import Validation

ROOM = ("pre_nms_top_k", "post_nms_top_k")
"""Options of heads that leave room for detections: without weights, and of two numbers the second for prediction."""

ADVICE = dict.fromkeys((*ROOM, "max_detections"), ": raise --max-detections")
"""What to do about an option of a head that hides objects."""


def run(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = _parsed(argv)
    target = Path(options.json) if options.json else None
    detector = load(options.model, trusted=options.trust)
    if options.max_detections is not None:
        if detector.task != "detection":
            raise ValueError(f"--max-detections is for detectors, and {options.model} is for {detector.task}")
        detector = _finding_at_most(options.max_detections, detector, Path(options.model), options.trust)
    detector.to(choose_device(options.device))
    console = Console(stderr=True)
    data = read_split(
        console,
        options.split,
        options.data,
        annotations=options.annotations,
        images=options.images,
        categories=detector.categories,
        task=detector.task,
    )
    if detector.needs_masks:
        check_masks(data, crowds=True)
    limits = head_limits(data, detector.head) if detector.task == "detection" else {}
    for option, line in limits.items():
        console.print(f"note: {line}{ADVICE.get(option, '')}", highlight=False, markup=False, soft_wrap=True)
    validation = Validation(
        data,
        batch_size=options.batch_size,
        workers=options.workers,
        max_detections=options.max_detections or MAX_DETECTIONS,
    )
    selection = SelectionCounter(detector)
    evaluation = (
        validation.measure_classes(detector)
        if detector.task == "classification"
        else validation.measure(detector, observe=selection)
    )
    Console().print(evaluation_tables(evaluation))
    if selection.quality is not None:
        print(selection.line())
    if target is not None:
        write_text(target, json.dumps(evaluation.to_json() | selection.to_json(), indent=2) + "\n")
    return 0


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """What was typed, checked as far as it can be without the files that are read."""
    parser = CommandParser(
        "eval",
        description="Measure a trained detector: the 12 COCO numbers and a table per class, of boxes and, where it "
        "finds them, of masks; of a classifier top-1 and top-5.",
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, or the folder of a run")
    parser.add_argument(
        "--data", metavar="DIR", help="data set: annotations/val.json + images/, a like layout, or val/CLASS/"
    )
    parser.add_argument("--split", default="val", help="which split of it (default: val)")
    parser.add_argument("--annotations", metavar="FILE", help="annotation file, instead of --data's")
    parser.add_argument("--images", metavar="DIR", help="images, instead of --data's")
    parser.add_argument("--json", metavar="FILE", help="also write the numbers as JSON")
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="images at a time (default: 8)")
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=int,
        help=f"find and count so many per image, for dense images; COCO counts {MAX_DETECTIONS} per class",
    )
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="reading processes (default: 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    parser.add_argument("--trust", metavar="MODULE", action="append", default=[], help="import parts from MODULE")
    options = parser.parse(argv)
    if options.data is None and options.annotations is None:
        parser.error("which data set? give --data DIR, or --annotations FILE and --images DIR")
    if options.json:
        check_target(Path(options.json))
    if options.max_detections is not None and options.max_detections < MAX_DETECTIONS:
        parser.error(f"--max-detections is at least COCO's {MAX_DETECTIONS}, not {options.max_detections}")
    return options


def _finding_at_most(count: int, detector: Detector, model: Path, trusted: Sequence[str]) -> Detector:
    """The same detector with another ``max_detections`` and room for it; as it is where its head has no such option."""
    recipe = read_checkpoint(checkpoint_path(model))["recipe"]
    if "max_detections" not in recipe["head"]:
        return detector
    head = {**recipe["head"], "max_detections": count}
    for option in ROOM:
        if option in head:
            head[option] = _at_least(count, head[option])
    changed = build_resolved({**recipe, "head": head}, categories=detector.categories, trusted=trusted)
    changed.load_state_dict(detector.state_dict())
    return changed.eval()


def _at_least(count: int, value: int | Sequence[int]) -> int | list[int]:
    """An option that is at least so much; of two numbers the second, which is for prediction."""
    return max(count, value) if isinstance(value, int) else [value[0], max(count, value[1])]


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
        confident, fitting = self.quality.ratios()
        return (
            f"of {self.quality.selected:,} selected queries {confident:.2%} have a score above 0.5, "
            f"{fitting:.2%} and an IoU above 0.5"
        )

    def to_json(self) -> dict[str, Any]:
        """``selection``, where there is one: Prop_cls and Prop_both of RT-DETR's Table 4, as shares."""
        if self.quality is None:
            return {}
        confident, fitting = self.quality.ratios()
        return {"selection": {"selected": self.quality.selected, "Prop_cls": confident, "Prop_both": fitting}}
