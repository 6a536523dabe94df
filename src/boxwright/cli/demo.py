"""``boxwright demo``: the whole job on data that the project draws itself."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
import yaml
from rich.console import Console

from boxwright import __version__
from boxwright.cli.arguments import CommandParser
from boxwright.cli.predict import detection_rows
from boxwright.cli.train import say, train_recipe
from boxwright.compose.detectors import load, read_checkpoint
from boxwright.compose.recipes import resolve
from boxwright.compose.tasks import recipe_task
from boxwright.data.images import read_image
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.detections import Detections
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.tables import evaluation_tables
from boxwright.files import check_folder, write_text
from boxwright.reports.drawing import draw_detections
from boxwright.reports.report import ReportImage, require_extra, write_report
from boxwright.training.checkpoint import BEST, LAST
from boxwright.training.log import read_log
from boxwright.workflows.validation import Validation

RECIPE, BUDGET = "rtdetr_tiny", "5m"
NUM_IMAGES = 1000  # of fewer, the last minutes of training only learn them by heart
NUM_SHOWN = 8
THRESHOLD = 0.5


def run(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = CommandParser("demo", description="Draw a data set, train on it, evaluate, predict and write a report.")
    parser.add_argument("--out", metavar="DIR", default="demo", help="folder of the demo (default: demo)")
    parser.add_argument("--recipe", default=RECIPE, help=f"what to train (default: {RECIPE})")
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help=f"time for training, like 90s (default: {BUDGET} for {RECIPE}, else the recipe's)",
    )
    options = parser.parse(argv)
    require_extra()
    console = Console(stderr=True)
    out = Path(options.out)
    started = time.monotonic()

    budget = options.budget or (BUDGET if options.recipe == RECIPE else None)
    recipe, _ = resolve(options.recipe, {"train.steps": None, "train.budget": budget} if budget else {})
    if recipe_task(recipe) != "detection":
        parser.error(f"the demo shows a detector, and {options.recipe} is for {recipe_task(recipe)}")
    check_folder(out)

    say(console, "1/4  drawing a data set")
    draw_data_set(out / "data", train=NUM_IMAGES, image_size=160)
    say(console, "2/4  training")
    if not _trained(out / "run"):
        command = f"demo --out {out}"
        work = _train_options(options, out)
        status = train_recipe(console, recipe, out / "run", work, began=started, command=command)
        if status:
            return status
    else:
        say(console, f"     already done; remove {out / 'run'} to train again")

    say(console, "3/4  evaluating and predicting")
    detector = load(out / "run")
    data = open_data(out / "data", "val", categories=detector.categories)
    evaluation = Validation(data).measure(detector)
    Console().print(evaluation_tables(evaluation))
    images = _shown(data, evaluation.detections)
    _write_predictions(out / "predictions", images, data)

    say(console, "4/4  writing the report")
    _write_report(out, evaluation, images, data)
    print(f"""
report        {out / "report.html"}
predictions   {out / "predictions"}
checkpoint    {out / "run" / BEST}

next, on data of your own (COCO format: annotations/train.json, annotations/val.json, images/):
  boxwright train rtdetr_r18 --data DIR --image-size 320 --train.budget 30m
  boxwright list""")
    return 0


def _train_options(options: argparse.Namespace, out: Path) -> argparse.Namespace:
    return argparse.Namespace(
        recipe=options.recipe,
        data=str(out / "data"),
        train_annotations=None,
        train_images=None,
        val_annotations=None,
        val_images=None,
        backbone_weights=None,
        resume=(out / "run" / LAST).is_file(),
    )


def _trained(run: Path) -> bool:
    if not (run / LAST).is_file():
        return False
    progress = read_checkpoint(run / LAST)["progress"]
    return bool(progress["step"] == progress["steps"])


def _shown(data: DetectionData, found: dict[int, Detections]) -> list[ReportImage]:
    """The first images that have objects, and one that has none."""
    full = [r for r in data.records if len(r.labels)]
    empty = [r for r in data.records if not len(r.labels)]
    chosen = full[: NUM_SHOWN - 1] + empty[:1]
    return [ReportImage(read_image(r.path), r, found[r.image_id]) for r in chosen]


def _write_predictions(folder: Path, images: Sequence[ReportImage], data: DetectionData) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for image in images:
        name = image.record.path.name
        kept = image.detections[image.detections.scores >= THRESHOLD]
        draw_detections(image.image, kept, data.categories, threshold=THRESHOLD).save(folder / name, quality=95)
        rows += detection_rows(name, kept, data.categories)
    write_text(folder / "predictions.json", json.dumps(rows, indent=1) + "\n")


def _write_report(out: Path, evaluation: Evaluation, images: Sequence[ReportImage], data: DetectionData) -> None:
    state = read_checkpoint(out / "run" / LAST)
    recipe, progress = state["recipe"], state["progress"]
    parts = [recipe["backbone"], *recipe["neck"], recipe["head"]]
    write_report(
        out / "report.html",
        title="Boxwright demo",
        metrics=evaluation.to_json(curves=True),
        history=read_log(out / "run"),
        images=images,
        categories=data.categories,
        threshold=THRESHOLD,
        summary={
            "detector": ", ".join(part["name"] for part in parts),
            "training": f"{progress['steps']} steps in {progress['seconds']:.0f} s",
            "held-out images": str(len(data.records)),
            f"best {progress['measure']} during training": f"{progress['best']:.3f}",
        },
        notes=evaluation.notes,
        recipe=yaml.safe_dump(recipe, sort_keys=False),
        environment={
            "boxwright": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
            "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        },
        command=f"boxwright demo --out {out}",
    )
