"""The whole job on data that the project draws itself: draw, train, evaluate, predict, report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from boxwright.checkpoints import LAST, find_checkpoint, read_last
from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.compose.train_options import seconds
from boxwright.data.open import open_data
from boxwright.data.records import DetectionData
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.drawing import draw_detections, save_drawing
from boxwright.evaluation.evaluate import Evaluation
from boxwright.files import check_folder, write_text
from boxwright.reports.page import require_extra
from boxwright.reports.page_images import ReportImage
from boxwright.reports.report import ReportFacts
from boxwright.training.log import read_log
from boxwright.training.run import RECIPE
from boxwright.weights.model import load
from boxwright.workflows.demo_size import choose_size, count_processes
from boxwright.workflows.drawn_names import drawn_labels, note_undrawable_names
from boxwright.workflows.machine import describe_machine
from boxwright.workflows.observer import Observer
from boxwright.workflows.report import write_evaluation
from boxwright.workflows.run_folder import is_finished
from boxwright.workflows.train import train
from boxwright.workflows.validation import Validation
from boxwright_runtime.answers import detection_rows
from boxwright_runtime.detections import Detections

DEMO_RECIPE, BUDGET = "rtdetr_tiny", "4m"
NUM_IMAGES = 1000  # of fewer, the last minutes of training only learn them by heart
NUM_SHOWN = 8
THRESHOLD = 0.5


@dataclass(frozen=True)
class DemoResult:
    """Files of a demo, and its numbers.

    Args:
        report: an HTML file.
        predictions: folder of drawn images and ``predictions.json``.
        checkpoint: the best weights.
        evaluation: of these on the held-out images.
    """

    report: Path
    predictions: Path
    checkpoint: Path
    evaluation: Evaluation


def demo(
    out: str | Path = "demo",
    *,
    recipe: str | Path = DEMO_RECIPE,
    budget: str | None = None,
    processes: int | None = 1,
    observer: Observer | None = None,
) -> DemoResult:
    """Draw a data set, train on it, evaluate, predict and write a report; go on where an earlier call was stopped.

    Args:
        out: folder of the demo.
        recipe: name of a recipe of a detector, or path of a YAML file.
        budget: time for training, like 90s; four minutes of ``rtdetr_tiny`` and else the recipe's where None.
            ``rtdetr_tiny`` then trains with images and batches as large as this machine makes enough steps of.
        processes: that train ``rtdetr_tiny``; as suits the machine where None. With more than one, a script has to call
            this under ``if __name__ == "__main__"``.
        observer: hears what begins; silent where None.

    Raises:
        ValueError: the recipe is not for detection, the extra ``report`` is not installed, or ``out`` is a file.
        Interrupted: Ctrl-C was pressed; the state of training is saved.
    """
    observer = observer or Observer()
    require_extra()
    folder, began = Path(out), time.monotonic()
    budget = budget or (BUDGET if str(recipe) == DEMO_RECIPE else None)
    resolved, _ = resolve(recipe, {"train.steps": None, "train.budget": budget} if budget else {})
    if resolved.task != "detection":
        raise ValueError(f"the demo shows a detector, and {recipe} is for {resolved.task}")
    check_folder(folder)

    observer.announce("1/4  drawing a data set")
    draw_data_set(folder / "data", train=NUM_IMAGES, image_size=160)
    observer.announce("2/4  training")
    run = folder / "run"
    if is_finished(run):
        observer.announce(f"     already done; remove {run} to train again")
    else:
        train(
            _choose_recipe(resolved, run, processes) if str(recipe) == DEMO_RECIPE else resolved,
            folder / "data",
            out=run,
            resume="auto",
            observer=observer,
            began=began,
        )

    observer.announce("3/4  evaluating and predicting")
    detector = load(run)
    data = open_data(folder / "data", "val", categories=detector.categories)
    evaluation = Validation(data).measure(detector)
    images = _select_images(data, evaluation.detections)
    _write_predictions(folder / "predictions", images, data)

    observer.announce("4/4  writing the report")
    note_undrawable_names(data.categories, drawn_labels(images), observer)
    _write_report(folder, evaluation, images)
    return DemoResult(folder / "report.html", folder / "predictions", find_checkpoint(run), evaluation)


def _choose_recipe(recipe: Recipe, run: Path, processes: int | None) -> Recipe:
    """Return the recipe with the size that suits this machine, or that a run which goes on has."""
    if (run / LAST).is_file() and (run / RECIPE).is_file():
        return resolve(run / RECIPE).recipe
    assert recipe.train.budget is not None
    runtime = recipe.train.runtime
    runtime = replace(runtime, processes=count_processes(runtime.device) if processes is None else processes)
    return choose_size(replace(recipe, train=replace(recipe.train, runtime=runtime)), seconds(recipe.train.budget))


def _select_images(data: DetectionData, detections: dict[int, Detections]) -> list[ReportImage]:
    """The first images that have objects, and one that has none."""
    full = [record for record in data.records if len(record.labels)]
    empty = [record for record in data.records if not len(record.labels)]
    shown = full[: NUM_SHOWN - 1] + empty[:1]
    return [ReportImage(record.read(), record, detections[record.image_id]) for record in shown]


def _write_predictions(folder: Path, images: Sequence[ReportImage], data: DetectionData) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for image in images:
        name = image.record.path.name
        kept = image.detections[image.detections.scores >= THRESHOLD]
        save_drawing(draw_detections(image.image, kept, data.categories, threshold=THRESHOLD), folder / name)
        rows += detection_rows(name, kept)
    write_text(folder / "predictions.json", json.dumps(rows, indent=1) + "\n")


def _write_report(out: Path, evaluation: Evaluation, images: Sequence[ReportImage]) -> None:
    state = read_last(out / "run").content
    recipe, progress = state["recipe"], state["progress"]
    parts = [recipe["backbone"], *recipe["neck"], recipe["head"]]
    machine = describe_machine()
    write_evaluation(
        out / "report.html",
        evaluation,
        title="Boxwright demo",
        split="val",
        history=read_log(out / "run"),
        images=images,
        threshold=THRESHOLD,
        facts=ReportFacts(
            summary={
                "detector": ", ".join(part["name"] for part in parts),
                "training": f"{progress['steps']} steps in {progress['seconds']:.0f} s",
                "held-out images": str(len(evaluation.data.records)),
                f"best {progress['measure']} during training": f"{progress['best']:.3f}",
            },
            notes=evaluation.notes,
            recipe=yaml.safe_dump(recipe, sort_keys=False),
            environment={
                "processor": machine["processor"],
                "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
                **machine["versions"],
            },
            command=f"boxwright demo --out {out}",
        ),
    )
