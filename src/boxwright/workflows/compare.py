"""Comparison: several models, exported files or results files on the same data, each with the first."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from boxwright.compose.recipe import Recipe
from boxwright.detector import Detector
from boxwright.devices import ComputeOptions
from boxwright.evaluation.coco_evaluator import IoUType
from boxwright.evaluation.comparison import EvaluationComparison, align_classes, check_sampling, compare_evaluations
from boxwright.evaluation.evaluate import Evaluation
from boxwright.files import check_target
from boxwright.reports.page import require_extra
from boxwright.workflows.bench import bench
from boxwright.workflows.compare_result import ComparedModel, CompareResult
from boxwright.workflows.comparison_sections import write_comparison
from boxwright.workflows.evaluate import evaluate
from boxwright.workflows.evaluate_results import evaluate_results
from boxwright.workflows.info import measure_detector
from boxwright.workflows.models import load_predictor
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, data_name, data_path
from boxwright_runtime import Runtime
from boxwright_runtime.printable_names import printable

Comparable = str | Path | Detector | Runtime
"""A model, an exported file, or a results file: the path of a .json."""

_RUNTIMES, _ROUNDS = ("folded", "onnxruntime", "openvino"), 5
"""Of measurements of time; a file has its own runtime, and models predict with folded norms."""


def compare(
    models: Sequence[Comparable],
    data: Data,
    *,
    split: str = "val",
    html: str | Path | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    latency: bool = True,
    batch_size: int = 8,
    workers: int = 0,
    device: str | ComputeOptions = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
) -> CompareResult:
    """Compare models on the same images: differences with intervals of 95 %, objects that one alone detects, costs.

    Args:
        models: two or more: any sources that ``evaluate`` takes, or results files of any project (.json).
        data: as for ``evaluate``; of results files alone no image is read.
        split: the name of the split.
        html: file for a page; none is written where None.
        num_samples: of the images, for the intervals; see ``compare_evaluations``.
        seed: draws the samples.
        latency: measure the time of one image on the CPU, in rounds over all models and exported files.
        batch_size: images that go through a network together.
        workers: processes that read images; 0 reads in this one.
        device: as for ``evaluate``; the precision is that of models, and files have their own.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears notes and progress; notes become warnings where None.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: fewer than two models, no detectors, other images or classes, too few samples, or faulty data.
    """
    if isinstance(models, str | Path) or len(models) < 2:
        raise ValueError("two or more are compared: models, exported files, or results files (.json)")
    check_sampling(num_samples, seed)
    if html is not None:
        require_extra()
        check_target(Path(html))
    observer, compute = observer or Observer(), ComputeOptions.of(device)
    # All are opened before the first is measured: a wrong name is said at once.
    opened = [_open(model, compute, trusted, observer) for model in models]
    compared: list[ComparedModel] = []
    for name, model in zip(_name(models), opened, strict=True):
        observer.announce(f"measuring {printable(name)}")
        own = _evaluate(model, data, compute, split=split, batch_size=batch_size, workers=workers, observer=observer)
        # Numbers and drawings stand beside each other.
        labels_of = compared[0].evaluation.data if compared else own.data
        compared.append(ComparedModel(name, align_classes(labels_of, own), *_count_costs(model)))
    if latency:
        compared = _measure_latencies(compared, models, trusted, observer)
    result = _compare(tuple(compared), num_samples, seed, observer)
    if html is not None:
        observer.announce(f"writing {html}")
        command = ["boxwright", "compare", *(one.name for one in compared), "--data", data_path(data), "--split", split]
        name = f"{data_name(data)}, {split}"
        write_comparison(Path(html), result, data=name, command=shlex.join(command), observer=observer)
    return result


def _is_results(model: Comparable) -> bool:
    return isinstance(model, str | Path) and Path(model).suffix.lower() == ".json"


def _open(
    model: Comparable, compute: ComputeOptions, trusted: Collection[str], observer: Observer
) -> Detector | Runtime | Path:
    """Open a model or a file; a results file stays a path."""
    if _is_results(model):
        assert isinstance(model, str | Path)
        if not Path(model).is_file():
            raise FileNotFoundError(f"{printable(model)}: no such results file")
        return Path(model)
    predictor = load_predictor(model, device=compute.device, trusted=trusted, observer=observer)
    if predictor.task != "detection":
        name = printable(model) if isinstance(model, str | Path) else "a model"
        raise ValueError(f"{name} is for {predictor.task}: detectors are compared")
    return predictor


def _name(models: Sequence[Comparable]) -> list[str]:
    """Name each as it was typed, and by its position where that is not enough."""
    names = [
        str(model.path if isinstance(model, Runtime) else model) if not isinstance(model, Detector) else f"detector {i}"
        for i, model in enumerate(models, 1)
    ]
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]


def _evaluate(
    model: Detector | Runtime | Path,
    data: Data,
    compute: ComputeOptions,
    *,
    split: str,
    batch_size: int,
    workers: int,
    observer: Observer,
) -> Evaluation:
    if isinstance(model, Path):
        return evaluate_results(model, data, split=split, observer=observer)
    device = ComputeOptions(tiles=compute.tiles) if isinstance(model, Runtime) else compute
    own = evaluate(model, data, split=split, batch_size=batch_size, workers=workers, device=device, observer=observer)
    assert isinstance(own, Evaluation)  # it is a detector
    return own


def _count_costs(model: Detector | Runtime | Path) -> tuple[int | None, float | None]:
    """Count parameters and GMAC of a detector that was built from a recipe."""
    if not isinstance(model, Detector) or not isinstance(model.recipe, Recipe):
        return None, None
    # Counting changes a detector.
    cost = measure_detector(deepcopy(model).to("cpu"))
    return cost.params, cost.deployed_gmac


def _measure_latencies(
    compared: Sequence[ComparedModel], models: Sequence[Comparable], trusted: Collection[str], observer: Observer
) -> list[ComparedModel]:
    sources = {
        index: model.path if isinstance(model, Runtime) else model
        for index, model in enumerate(models)
        # What was put together by hand cannot be given to a process.
        if not _is_results(model) and not (isinstance(model, Detector) and model.recipe is None)
    }
    if not sources:
        return list(compared)
    rows = bench(list(sources.values()), runtimes=_RUNTIMES, rounds=_ROUNDS, trusted=trusted, observer=observer).rows
    times = dict(zip(sources, (row.median * 1e3 for row in rows), strict=True))
    return [replace(one, latency_ms=times.get(index)) for index, one in enumerate(compared)]


def _compare(compared: tuple[ComparedModel, ...], num_samples: int, seed: int, observer: Observer) -> CompareResult:
    """Compare each but the first with the first."""
    first, *others = (one.evaluation for one in compared)
    forms: list[IoUType] = ["bbox"]
    if all(one.masks is not None for one in (first, *others)):
        forms.append("segm")
    done: dict[IoUType, list[EvaluationComparison]] = {form: [] for form in forms}
    with observer.track("comparing") as progress:
        for form in forms:
            for one in compare_evaluations(first, others, iou_type=form, num_samples=num_samples, seed=seed):
                done[form].append(one)
                progress(sum(map(len, done.values())), len(forms) * len(others))
    return CompareResult(compared, tuple(done["bbox"]), tuple(done.get("segm", ())))
