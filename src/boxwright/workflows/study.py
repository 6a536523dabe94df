"""Studies: variations of a recipe, each trained with several seeds, compared in a page and a table."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from boxwright.checkpoints import LAST, PREVIOUS, find_checkpoint
from boxwright.compose.recipe import Recipe
from boxwright.data.open import open_data
from boxwright.data.synthetic.shapes import draw_data_set, is_drawn
from boxwright.files import check_folder, write_text
from boxwright.reports.page import require_extra
from boxwright.reports.study_page import StudyPage, StudyPageRow, write_study_page
from boxwright.workflows.bench import bench
from boxwright.workflows.info import measure_recipe
from boxwright.workflows.observer import Observer, Silent
from boxwright.workflows.study_file import Study, read_study, run_folder
from boxwright.workflows.study_results import (
    StudyResult,
    VariationResult,
    collect_results,
    format_difference,
    format_published,
    format_spread,
    read_record,
    record_run,
)
from boxwright.workflows.train import train

Engine = Literal["local", "ray"]
"""Runs one after the other, or as jobs of Ray."""

_PROCESS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables of torchrun: the processes of a study train runs of their own, and not one run together."""

_WAIT_SECONDS = 0.5


class StudyRun(NamedTuple):
    """One run of a study.

    Args:
        name: of the variation.
        seed: of the run.
        folder: of the run.
        recipe: with all options.
        data: folder of the data set.
        measure: name of the number that is compared.
    """

    name: str
    seed: int
    folder: Path
    recipe: Recipe
    data: str
    measure: str

    def is_done(self) -> bool:
        """Tell whether the run has ended.

        Raises:
            ValueError: it was done with another recipe.
        """
        record = read_record(self.folder)
        if record is not None and record.recipe != self.recipe.to_dict():
            raise ValueError(
                f"{self.folder} was trained with other options than the study has now: give another --out, or remove it"
            )
        return record is not None

    def anywhere(self) -> StudyRun:
        """Return the same with paths that do not depend on the working folder, which is another one in jobs of Ray."""
        return self._replace(folder=self.folder.absolute(), data=str(Path(self.data).absolute()))

    def do(self) -> str:
        """Train, and go on where an earlier call was stopped; return what came of it, in words."""
        result = train(self.recipe, self.data, out=self.folder, resume="auto", observer=Silent())
        record_run(self.folder, self.recipe.to_dict(), self.measure, result.seconds)
        # What only a run that goes on would need is many times as large as the weights.
        for name in (LAST, PREVIOUS):
            if (self.folder / name) != result.checkpoint:
                (self.folder / name).unlink(missing_ok=True)
        record = read_record(self.folder)
        assert record is not None  # it has just been written
        return f"{self.measure} {record.numbers.get(self.measure, 0.0):.3f} in {result.seconds:.0f} s"


def study(
    study: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    latency: bool = True,
    engine: Engine = "local",
    observer: Observer | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> StudyResult:
    """Train variations of a recipe and compare them; go on where an earlier call was stopped.

    After each run, ``study.html``, ``study.md`` and ``study.json`` in the folder show what there is. Processes that
    torchrun has started share the runs among them.

    Args:
        study: name of a study that comes with Boxwright, or path of a YAML file.
        data: folder of a data set; the study's own, or drawn data, where None.
        out: folder of the study; ``studies/NAME`` where None.
        seeds: in place of the study's.
        latency: measure the time of prediction at the end.
        engine: ``local`` trains one run after the other, ``ray`` each as a job of Ray, which has to be installed.
        observer: hears what begins and ends; notes become warnings where None.
        overrides: of the recipe in all runs, over those of the study.

    Raises:
        FileNotFoundError: no such file or data.
        ValueError: no study, a part or option that does not exist, or the extra ``report`` is not installed; before
            anything runs.
        Interrupted: Ctrl-C was pressed; the state of the run is saved.
    """
    require_extra()
    _check_engine(engine)
    read = read_study(study, data=data, seeds=seeds, overrides=overrides)
    folder = Path(out) if out is not None else Path("studies") / read.name
    check_folder(folder)
    rank, count = take_share(os.environ)
    observer = (observer or Observer()) if rank == 0 else Silent()
    plan = _Plan.make(read, folder, _prepare_data(read, folder / "data", rank, observer))
    pending = [run for run in plan.runs if not run.is_done()]
    observer.announce(f"{len(plan.runs)} runs, {len(plan.runs) - len(pending)} of them done, into {folder}")
    # By their place among all runs: other processes may have done some by now.
    own = [run for run in plan.runs[rank::count] if run in pending]
    failed = []
    for run, outcome in _do_all(own, engine):
        if isinstance(outcome, ValueError):
            failed.append(f"{run.name}, seed {run.seed}: {outcome}")
            observer.note(failed[-1])
        else:
            observer.announce(f"{run.name}, seed {run.seed}: {outcome}")
        plan.write({})
    is_whole = rank == 0 and all(run.is_done() for run in plan.runs)
    result = plan.write(_measure_latencies(plan, observer) if latency and is_whole else {})
    if failed:
        raise ValueError(f"{len(failed)} of {len(plan.runs)} runs failed: {failed[0]}; the others are in {folder}")
    return result


class _Plan(NamedTuple):
    """A study whose variations have been built once, with its runs: seed by seed, so that a part says something."""

    study: Study
    folder: Path
    runs: tuple[StudyRun, ...]
    costs: Mapping[str, tuple[int, float]]
    measure: str

    @classmethod
    def make(cls, study: Study, folder: Path, data: str) -> _Plan:
        """Build each variation once, which checks what a recipe alone cannot tell.

        Raises:
            ValueError: a variation cannot be built.
        """
        recipes = {name: study.resolve(name, study.seeds[0]) for name in study.variations}
        task = recipes[study.against].task
        measure = "top1" if task == "classification" else "AP"
        num_classes = len(open_data(data, task=task, check_images=False).categories)
        costs = {name: _cost(study, name, recipe, num_classes) for name, recipe in recipes.items()}
        runs = tuple(
            StudyRun(name, seed, run_folder(folder, name, seed), study.resolve(name, seed), data, measure)
            for seed in study.seeds
            for name in study.variations
        )
        return cls(study, folder, runs, costs, measure)

    def write(self, latencies: Mapping[str, float]) -> StudyResult:
        """Write the page, the table and the numbers of all runs that have ended; return them."""
        result = collect_results(self.study, self.folder, self.costs, latencies, self.measure)
        write_text(self.folder / "study.json", json.dumps(result.to_json(), indent=1) + "\n")
        write_text(self.folder / "study.md", result.to_markdown())
        write_study_page(self.folder / "study.html", page_of(result))
        return result


def _cost(study: Study, name: str, recipe: Recipe, num_classes: int) -> tuple[int, float]:
    try:
        cost = measure_recipe(recipe, num_classes)
    except ValueError as error:
        raise ValueError(f"{study.name}: variation {name!r}: {error}") from None
    return cost.params, cost.deployed_gmac


def take_share(environment: MutableMapping[str, str]) -> tuple[int, int]:
    """Return which of how many processes this is, and let it train by itself: torchrun's variables are removed."""
    rank, count = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
    for name in _PROCESS:
        environment.pop(name, None)
    return rank, count


def _prepare_data(study: Study, folder: Path, rank: int, observer: Observer) -> str:
    """Draw the data of a study that has none; other processes wait for the first."""
    if study.data is not None:
        return study.data
    if rank == 0:
        observer.announce("drawing a data set")
        draw_data_set(folder, **study.drawn)
    while not is_drawn(folder, **study.drawn):
        time.sleep(_WAIT_SECONDS)
    return str(folder)


def _check_engine(engine: str) -> None:
    if engine not in ("local", "ray"):
        raise ValueError(f"engine is local or ray, not {engine!r}")
    if engine == "ray":
        _import_ray()


def _import_ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise ValueError("Ray is not installed, which --engine ray needs: pip install ray") from None


def _do_all(runs: Sequence[StudyRun], engine: Engine) -> Iterator[tuple[StudyRun, str | ValueError]]:
    """Do runs; yield each with what came of it."""
    if engine == "local":
        for run in runs:
            yield run, _attempt(run)
        return
    ray = _import_ray()
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    attempt = ray.remote(max_retries=0)(_attempt)
    jobs = {attempt.remote(run.anywhere()): run for run in runs}
    while jobs:
        (job,), _ = ray.wait(list(jobs), num_returns=1)
        yield jobs.pop(job), ray.get(job)


def _attempt(run: StudyRun) -> str | ValueError:
    try:
        return run.do()
    except ValueError as error:
        return error


def _measure_latencies(plan: _Plan, observer: Observer) -> dict[str, float]:
    """Measure the time of one image, in milliseconds, of each variation's first run, in rounds over all."""
    runs = plan.runs[: len(plan.study.variations)]
    rows = bench([find_checkpoint(run.folder) for run in runs], runtimes=("folded",), rounds=5, observer=observer).rows
    return {run.name: row.median * 1e3 for run, row in zip(runs, rows, strict=True)}


def page_of(result: StudyResult) -> StudyPage:
    """Return the content of the page of a study."""
    study = result.study
    first, *others = result.shown or ("",)
    names = [first, f"{result.measure} - {study.against}", *others, "parameters", "GMAC", "ms"]
    published = study.published
    if published is not None:
        names.append(f"{published.measure}, published")
    return StudyPage(
        title=study.summary or study.name,
        facts={
            "recipe": study.base,
            "data": study.data or "drawn: " + ", ".join(f"{key} {value}" for key, value in study.drawn.items()),
            "runs": f"{result.num_finished} of {result.num_runs}, seeds {', '.join(map(str, study.seeds))}",
            **({} if published is None else {"published": published.source}),
        },
        columns=names,
        rows=tuple(_page_row(result, one) for one in result.variations),
        measure=result.measure,
        options=yaml.safe_dump(
            {"overrides": dict(study.overrides), "variations": {k: dict(v) for k, v in study.variations.items()}},
            sort_keys=False,
        ),
        command=shlex.join(["boxwright", "study", study.source, "--out", str(result.folder)]),
    )


def _page_row(result: StudyResult, one: VariationResult) -> StudyPageRow:
    # Before the first run has ended there is no number, and still its column.
    cells = [(format_spread(one.mean(name), one.std(name)), one.mean(name)) for name in result.shown or ("",)]
    difference = None if one.difference is None else one.difference.mean
    cells.insert(1, (format_difference(one.difference), difference))
    cells += [(f"{one.params:,}", one.params), (f"{one.gmac:.2f}", one.gmac)]
    cells.append(("" if one.latency_ms is None else f"{one.latency_ms:.1f}", one.latency_ms))
    if (published := result.study.published) is not None:
        cells.append((format_published(published, one.name), published.values.get(one.name)))
    values = tuple(own[result.measure] for own in one.numbers.values() if result.measure in own)
    return StudyPageRow(one.name, tuple(cells), values, tuple(one.curves.values()))
